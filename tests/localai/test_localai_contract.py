"""The package's messages and the contract, written down twice, agree; so do the RPCs."""

from __future__ import annotations

import pytest
from contract import RESPONSES, classes, table
from google.protobuf.descriptor import FieldDescriptor

from rillm.localai import backend_pb2


def kind_of(field: FieldDescriptor) -> tuple[int, int, bool]:
    """Number, type on the wire (an enum is a number) and whether there may be several."""
    is_enum = field.type == FieldDescriptor.TYPE_ENUM
    kind = FieldDescriptor.TYPE_INT32 if is_enum else field.type
    return field.number, kind, field.is_repeated


@pytest.mark.parametrize("name", table())
def test_messages_are_those_of_the_contract(name: str) -> None:
    ours = backend_pb2.DESCRIPTOR.message_types_by_name[name].fields_by_name
    theirs = classes[name].DESCRIPTOR.fields_by_name
    assert {field: kind_of(ours[field]) for field in theirs} == {
        field: kind_of(found) for field, found in theirs.items()
    }


def test_rpcs_are_those_of_the_contract() -> None:
    service = backend_pb2.DESCRIPTOR.services_by_name["Backend"]
    assert service.full_name == "backend.Backend"
    assert {m.name: m.output_type.name for m in service.methods} == RESPONSES
    assert [m.name for m in service.methods if m.server_streaming] == ["PredictStream"]


def test_fields_that_are_not_known_are_ignored() -> None:
    """LocalAI adds fields often."""
    unknown = b"\xfa\x3f\x03abc"
    assert backend_pb2.PredictOptions.FromString(b"\x0a\x02Hi" + unknown).Prompt == "Hi"
