"""The Responses API of OpenAI: another encoder over the same stream events, and what it keeps."""
