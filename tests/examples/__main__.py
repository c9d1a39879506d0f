"""Writes the outbound examples anew, and then the AsyncAPI document that shows some of them."""

from __future__ import annotations

from service.contracts.package_data import data_path
from service.contracts.schemas import schema_files
from tests.examples.files import outbound_files, stray_outbound_files

for path in list(stray_outbound_files()):
    path.unlink()
for path, content in outbound_files().items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
schema_files.export(data_path("schemas"))
