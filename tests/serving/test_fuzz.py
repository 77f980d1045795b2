"""A fuzzer over the API: whatever is sent gets an answer that the description promises, and never a 500."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from starlette.testclient import TestClient

from winnow.serving.app import create_app

from .conftest import jpeg

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install -e '.[dev]'")
promises = pytest.importorskip("schemathesis.specs.openapi.checks")
PROMISES = [schemathesis.checks.not_a_server_error, promises.status_code_conformance,
            promises.content_type_conformance, promises.response_schema_conformance]
MODES = list(schemathesis.GenerationMode)  # what fits the description, and what does not


@pytest.fixture(scope="module")
def operations(service):
    app = create_app(service)
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    return [found.ok() for found in schema.get_all_operations()]


def test_every_answer_is_one_that_was_promised(operations):
    checked = []
    for operation in operations:
        @settings(max_examples=60, deadline=None, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck))
        @given(case=strategies.one_of(*(operation.as_strategy(generation_mode=mode) for mode in MODES)))
        def fuzz(case):
            answer = case.call(base_url="http://localhost", headers={"Host": "localhost"})
            assert answer.status_code < 500
            case.validate_response(answer, checks=PROMISES)
            checked.append(answer.status_code)

        fuzz()
    assert {200, 422} <= set(checked)


def test_the_service_goes_on_after_the_fuzzer(service):
    client = TestClient(create_app(service), base_url="http://localhost")
    assert client.post("/v1/detect", files={"image": jpeg()}).status_code == 200
    assert client.get("/readyz").status_code == 200
