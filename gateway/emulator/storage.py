"""The emulator's own CDN: signed uploads, whole or in parts, and downloads, open to any browser.

Decision: no key here, as with fal; what lets an upload in is the token in its URL. A part counts once it is whole, and
an object once it is complete, so nobody ever downloads half a file.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.emulator.answers import Answer, as_json, bare, counted, failure, whole
from gateway.emulator.files import Intake, Stored, read_parts
from gateway.emulator.handler import KEPT_MOST_BYTES, Reception
from gateway.emulator.models import PIXELS_MOST, png

if TYPE_CHECKING:
    from gateway.emulator.faults import Field

CORS: Final[tuple[Field, ...]] = (
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "GET, PUT, POST, OPTIONS"),
    ("access-control-allow-headers", "*"),
    ("access-control-expose-headers", "*"),
)


class OpenReception(Reception):
    """A request without a key that any page may make."""

    needs_key = False

    def identified(self, answer: Answer) -> Answer:
        """Add what a browser must read."""
        opened = super().identified(answer)
        return replace(opened, fields=(*opened.fields, *CORS))

    async def compose(self) -> Answer:
        """Answer a preflight; everything else is the subclass's."""
        return bare(204) if self.request.method == "OPTIONS" else await self.serve()

    async def serve(self) -> Answer:
        """Return the answer to anything but a preflight."""
        raise NotImplementedError

    options = Reception.respond


class Upload(OpenReception):
    """`PUT` /storage/uploads/{id}/{name}[/{part}]?token=…: one part, or the whole file as its only part."""

    intake: Intake | None = None

    async def prepare(self) -> None:
        """Open the part's file before the body comes, if the URL is a good one."""
        await super().prepare()
        if self.request.method == "PUT" and self.refusal is None and not (self.is_early or self.wire.gone):
            self.refusal, self.intake = self._admit()

    def _admit(self) -> tuple[Answer | None, Intake | None]:
        stored, refusal = signed(self)
        if stored is None:
            return refusal, None
        if stored.multipart != bool(self.path_kwargs["part"]):
            return failure(400, detail="A part where the upload has none, or none where it has parts"), None
        return None, self.world.files.receive(stored)

    def take(self, chunk: bytes) -> None:
        """Store a piece."""
        if self.intake is not None and not self.intake.write(chunk):
            self.refusal = failure(507, detail="The emulator's storage is full; POST /_emulator/reset empties it")
            self._abandon()

    async def serve(self) -> Answer:
        """Keep the part."""
        stored = self.world.files.find(self.path_kwargs["object_id"])
        if stored is None or self.intake is None:
            return failure(404)
        number = int(self.path_kwargs["part"].lstrip("/") or 1)
        part, self.intake = self.intake.commit(self.visit.sha256), None
        self.world.files.keep(stored, number, part=part)
        stored.complete = not stored.multipart
        return as_json(200, {"partNumber": number, "etag": part.etag}, fields=(("etag", part.etag),))

    def on_connection_close(self) -> None:
        """Forget half a part."""
        super().on_connection_close()
        self._abandon()

    def _abandon(self) -> None:
        if self.intake is not None:
            self.intake.abandon()
            self.intake = None

    put = Reception.respond


class Complete(OpenReception):
    """`POST` /storage/uploads/{id}/{name}/complete {parts: [{partNumber, etag}]}: all parts are there."""

    async def serve(self) -> Answer:
        """Check each named part against what arrived."""
        stored, refusal = signed(self)
        if stored is None:
            return refusal or failure(404)
        named = named_parts(bytes(self.kept)) if self.visit.bytes <= KEPT_MOST_BYTES else None
        if named is None or named != {number: part.etag for number, part in stored.parts.items()}:
            return failure(400, detail="The parts named are not the parts that arrived")
        stored.complete = True
        return as_json(200, {"status": "ok"})

    post = Reception.respond


class Download(OpenReception):
    """`GET` /storage/files/{id}/{name}: the bytes that were uploaded."""

    async def serve(self) -> Answer:
        """Return the content, never in memory as a whole."""
        stored = self.world.files.find(self.path_kwargs["object_id"])
        if stored is None or not stored.complete:
            return failure(404)
        return counted(stored.length, read_parts(stored), content_type=stored.content_type)

    get = Reception.respond


class Picture(OpenReception):
    """`GET` /storage/images/{width}x{height}-{seed}.png: what a model has painted."""

    async def serve(self) -> Answer:
        """Return the picture."""
        width, height, seed = (int(self.path_kwargs[name]) for name in ("width", "height", "seed"))
        if not (0 < width <= PIXELS_MOST and 0 < height <= PIXELS_MOST):
            return failure(404)
        return whole(200, png(width, height, seed=seed), content_type="image/png")

    get = Reception.respond


def signed(request: Reception) -> tuple[Stored | None, Answer | None]:
    """Return the object that a signed URL is for, or the refusal."""
    stored = request.world.files.find(request.path_kwargs["object_id"])
    if stored is None:
        return None, failure(404)
    if not hmac.compare_digest(request.get_query_argument("token", "").encode(), stored.token.encode()):
        return None, failure(403, detail="The signature of this URL is not valid")
    return stored, None


def named_parts(body: bytes) -> dict[int, str] | None:
    """Return etag by number out of the body of a completion; None where it is not one."""
    try:
        return {int(part["partNumber"]): str(part["etag"]) for part in json.loads(body)["parts"]}
    except (ValueError, KeyError, TypeError):
        return None
