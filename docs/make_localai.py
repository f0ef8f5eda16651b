"""Compiles the messages that LocalAI and a backend exchange.

python docs/make_localai.py          # writes backend_pb2.py and backend_pb2.pyi
python docs/make_localai.py --check  # exits with 1 if they are not what backend.proto says
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

SOURCE = Path(__file__).parents[1] / "src"
PROTO = SOURCE / "rillm" / "localai" / "backend.proto"


def compile_proto(*outputs: str) -> None:
    """Run the protocol buffer compiler; `outputs` are its options."""
    if protoc.main(["protoc", f"-I{SOURCE}", *outputs, str(PROTO)]) != 0:
        sys.exit(f"{PROTO} cannot be compiled")


def is_current() -> bool:
    """Whether the committed module says what the proto says; versions of compilers may differ."""
    from rillm.localai import backend_pb2

    committed = FileDescriptorProto.FromString(backend_pb2.DESCRIPTOR.serialized_pb)
    with tempfile.NamedTemporaryFile(suffix=".pb") as described:
        compile_proto(f"--descriptor_set_out={described.name}")
        (written,) = FileDescriptorSet.FromString(Path(described.name).read_bytes()).file
    _clear_json_names(written.message_type)
    return committed == written and PROTO.with_name("backend_pb2.pyi").exists()


def _clear_json_names(messages: Iterable[DescriptorProto]) -> None:
    """Take out what the module leaves out."""
    for message in messages:
        _clear_json_names(message.nested_type)
        for field in message.field:
            field.ClearField("json_name")


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        compile_proto(f"--python_out={SOURCE}", f"--pyi_out={SOURCE}")
    elif not is_current():
        sys.exit("backend_pb2.py is not up to date: run python docs/make_localai.py")
