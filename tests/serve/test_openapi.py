"""Schemathesis reads the OpenAPI document and finds nothing against it."""

from __future__ import annotations

from pathlib import Path

from schema_check import examine

from interloom.serve import guard


def test_schemathesis_finds_nothing(server, tmp_path: Path):
    examine(server.url, tmp_path)


def test_nor_with_keys(start, tmp_path: Path):
    key = guard.add_key(tmp_path / "keys.json", "ann", 0)
    at = start(keys=tmp_path / "keys.json")
    examine(at.url, tmp_path, "--header", f"Authorization: Bearer {key}")
