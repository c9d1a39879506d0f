"""Uploaded apps on disk: one folder per path id, a new version of it at every upload.

Promise: an app's files never change once it can be submitted (an upload makes a new version and
then points to it, in one rename), so a run reads what was uploaded for it; a failed upload leaves
the earlier version in place; apps survive a restart, but for their cohort query, which is never
written down. Old versions go when no run reads them. What breaks the promise: a trainer that writes
into its own app folder.

Layout: `<folder>/<path id>/<version>/...` and `<folder>/<path id>/current.json`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from uuid import UUID

from service.contracts.fl import IStartTrainingBody
from service.contracts.inbound.training import SiteResources
from service.fl_server.downloads import Downloads
from service.fl_server.http_errors import Busy, RuntimeFailed
from service.fl_server.runtime import StagedApp

_CURRENT: Final = "current.json"
#: Seconds after which an app that no run reads is removed.
KEEP_SECONDS: Final = 86_400.0

Check = Callable[[StagedApp], Awaitable[None]]


class Apps:
    """The uploaded apps below `folder`. `downloads` is None where bundles are not fetched."""

    def __init__(self, folder: Path, downloads: Downloads | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._downloads = downloads
        self._uploading: set[UUID] = set()
        #: The current apps' cohort queries.
        self._queries: dict[UUID, str] = {}

    async def upload(
        self,
        path_id: UUID,
        body: IStartTrainingBody,
        check: Check,
        *,
        model_id: UUID | None = None,
        resources: SiteResources | None = None,
    ) -> StagedApp:
        """Fetch a bundle, let `check` look at it, and make it the current app of `path_id`.

        Raises:
            Busy: another upload under this path id is in progress.
            FlApiError: from the download or from `check`; the earlier app stays.
        """
        if path_id in self._uploading:
            raise Busy(f"an upload of {path_id} is in progress")
        self._uploading.add(path_id)
        version = self._folder / str(path_id) / f"{time.time_ns():020d}"
        try:
            version.mkdir(parents=True)
            app = StagedApp(
                path_id,
                version,
                tuple(body.trusts),
                empty=not body.bundle_urls,
                project_id=body.project_id,
                cohort_query=body.cohort_query,
                model_id=model_id,
                resources=resources,
            )
            if body.bundle_urls and self._downloads is not None:
                await self._downloads.fetch(body.bundle_urls, path_id, version)
            if not app.empty:
                await check(app)
            _point_to(app)
            self._queries[path_id] = body.cohort_query
        except OSError as exc:
            await asyncio.to_thread(shutil.rmtree, version, ignore_errors=True)
            raise RuntimeFailed(f"the app can't be stored: {exc.strerror}") from exc
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, version, ignore_errors=True)
            raise
        finally:
            self._uploading.discard(path_id)
        return app

    def get(self, path_id: UUID) -> StagedApp | None:
        """The current app of a path id, or None when nothing was uploaded."""
        home = self._folder / str(path_id)
        try:
            current = json.loads((home / _CURRENT).read_bytes())
            model_id, resources = current.get("model_id"), current.get("resources")
            return StagedApp(
                path_id,
                home / current["version"],
                tuple(current["slots"]),
                current["empty"],
                project_id=current.get("project_id"),
                cohort_query=self._queries.get(path_id),
                model_id=None if model_id is None else UUID(model_id),
                resources=None if resources is None else SiteResources(**resources),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def clean(self, in_use: frozenset[Path], now: float) -> None:
        """Remove what no run reads: replaced versions, and apps older than `KEEP_SECONDS`."""
        for home in self._folder.iterdir():
            try:
                path_id = UUID(home.name)
            except ValueError:
                continue
            if path_id in self._uploading:
                continue
            current = self.get(path_id)
            kept = 0
            for version in home.iterdir():
                if not version.is_dir():
                    continue
                old = now - version.stat().st_mtime > KEEP_SECONDS
                is_current = current is not None and version == current.folder
                if version in in_use or (is_current and not old):
                    kept += 1
                else:
                    shutil.rmtree(version, ignore_errors=True)
            if not kept:
                shutil.rmtree(home, ignore_errors=True)
                self._queries.pop(path_id, None)


def _point_to(app: StagedApp) -> None:
    home = app.folder.parent
    fresh = home / f"{app.folder.name}.json"
    fresh.write_text(
        json.dumps(
            {
                "version": app.folder.name,
                "slots": app.slots,
                "empty": app.empty,
                "project_id": app.project_id,
                "model_id": None if app.model_id is None else str(app.model_id),
                "resources": None if app.resources is None else app.resources.model_dump(),
            }
        )
    )
    fresh.replace(home / _CURRENT)
