"""From a policy file and the environment to a checked `Policy`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr, ValidationError

from drkit.config.compiled import owned
from drkit.config.consistency import contradictions
from drkit.config.discovery import read_policy_file
from drkit.config.document import Document, Path, Problem, read_document
from drkit.config.environment import OVERRIDES, PREFIX, SECRETS
from drkit.config.problems import dotted, explain, line_of, misspelt
from drkit.config.schema import PolicySchema
from drkit.config.settings import Settings, read_settings
from drkit.errors import PolicyError
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from drkit.config.policy import Policy


def load_policy(path: str | os.PathLike[str], environ: Mapping[str, str]) -> Policy:
    """Read and check a policy file; the environment's settings replace the file's.

    Raises:
        NotFound: there is no such file.
        PolicyError: everything that is wrong with it, one line each:
            `file:line: field: what is wrong; what to write instead`.
    """
    absolute = os.path.abspath(path)
    data, owner = read_policy_file(absolute)
    return owned(parse_policy(data, absolute, environ), owner)


def parse_policy(data: bytes, path: str, environ: Mapping[str, str]) -> Policy:
    """Check the bytes of the policy file at the absolute `path`.

    Raises:
        PolicyError: as `load_policy`.
    """
    settings = read_settings(environ)
    document = read_document(data)
    value, replaced = _overlay(document.value, settings)
    policy, problems = None, list(document.problems)
    if document.whole:
        policy, found = _validate(value, path, document)
        problems += found
    if policy is None or problems:
        raise PolicyError(
            page(_told(problems, path, replaced)),
            hint=f"correct this, then run: drkit policy check {path}",
        )
    return policy


def _validate(
    value: dict[str, Any], path: str, document: Document
) -> tuple[Policy | None, list[Problem]]:
    """Return the policy, or what is wrong beyond what reading found."""
    folder = os.path.dirname(path)
    errors = []
    policy = None
    try:
        context = {"folder": folder, "path": path}
        policy = PolicySchema.model_validate(value, context=context).value()
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    found = list(explain(errors, document.lines))
    found += (
        Problem(line_of(field, document.lines), field, text)
        for field, text in contradictions(value, folder)
    )
    # What reading refused or a typo hides would be told once more as missing.
    refused = {each.path for each in document.problems} | misspelt(errors)
    absent = [field for field in refused if _absent(value, field)]
    return policy, [
        problem
        for problem in found
        if not any(problem.path[: len(field)] == field for field in absent)
    ]


def _absent(value: Any, path: Path) -> bool:
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return True
        value = value[part]
    return False


def _overlay(
    value: dict[str, Any], settings: Settings
) -> tuple[dict[str, Any], dict[Path, str]]:
    """Lay the environment's values over the file's.

    Returns:
        The values, and which variable replaced the field at which path.
    """
    merged = value
    replaced: dict[Path, str] = {}
    for variable, path in (*OVERRIDES.items(), *SECRETS.items()):
        setting = getattr(settings, variable.removeprefix(PREFIX).lower())
        # Settings for S3 concern only those of a host's policies that use it.
        if setting is None or ("s3" in path and not _uses_s3(merged)):
            continue
        if isinstance(setting, SecretStr):
            setting = f"env:{variable}"
        merged = _with(merged, path, setting)
        replaced[path] = variable
    return merged, replaced


def _uses_s3(value: Mapping[str, Any]) -> bool:
    repository = value.get("repository")
    url = repository.get("url") if isinstance(repository, dict) else None
    return isinstance(url, str) and url.startswith("s3:")


def _with(node: Any, path: tuple[str, ...], setting: object) -> Any:
    """Return a copy of a mapping with the value at `path` replaced.

    Where the file has something else than a section on the way, it stays, to be told.
    """
    if not path:
        return setting
    if not isinstance(node, dict):
        return node
    inner = node.get(path[0], {})
    return {**node, path[0]: _with(inner, path[1:], setting)}


def _told(
    problems: Iterable[Problem], path: str, replaced: Mapping[Path, str]
) -> Iterator[str]:
    """Yield a line per problem, in the order of the file, without repetition."""
    for problem in sorted(set(problems), key=lambda each: (each.line, str(each.path))):
        field = dotted(problem.path)
        if problem.path in replaced:
            yield f"{replaced[problem.path]}, for {field}: {problem.text}"
        elif field:
            yield f"{path}:{problem.line}: {field}: {problem.text}"
        else:
            yield f"{path}:{problem.line}: {problem.text}"


def policy_schema() -> dict[str, Any]:
    """Return the JSON Schema of policy files, for editors that complete and check."""
    schema = PolicySchema.model_json_schema()
    _drop_null(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _drop_null(node: Any) -> None:
    """Make optional fields absent or of their type: the loader refuses null."""
    children = node.values() if isinstance(node, dict) else node
    if isinstance(node, dict) and "anyOf" in node:
        kept = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
        if len(kept) == 1:
            del node["anyOf"]
            node.update({**kept[0], **node})
            if node.get("default", ...) is None:
                del node["default"]
    for child in list(children) if isinstance(node, dict | list) else ():
        _drop_null(child)
