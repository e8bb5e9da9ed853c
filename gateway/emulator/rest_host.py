"""rest.fal.ai: the start of an upload, and tokens for browsers.

Decision: signed URLs point at the emulator's own address, as fal's point at its CDN: a client sends the bytes there
directly, and not through whatever stands before this host.
"""

from __future__ import annotations

import base64
import json
import secrets
from typing import ClassVar, Final
from urllib.parse import quote

from gateway.emulator.answers import Answer, as_json, failure, misplaced
from gateway.emulator.handler import Reception

TOKEN_SECONDS: Final = 120


class Initiate(Reception):
    """`POST` /storage/upload/initiate {content_type, file_name}: where to PUT the file, and where it will be."""

    multipart: ClassVar[bool] = False

    async def compose(self) -> Answer:
        """Return `{upload_url, file_url}`."""
        inputs = self.inputs()
        name, content_type = inputs.get("file_name"), inputs.get("content_type")
        if not isinstance(name, str) or not isinstance(content_type, str):
            missing = "content_type" if isinstance(name, str) else "file_name"
            return failure(422, detail=misplaced(missing, "missing", "Field required"))
        stored = self.world.files.initiate(name, content_type, multipart=self.multipart)
        place = f"{stored.object_id}/{quote(name, safe='')}"
        return as_json(
            200,
            {
                "upload_url": f"{self.world.own_url}/storage/uploads/{place}?token={stored.token}",
                "file_url": f"{self.world.own_url}/storage/files/{place}",
            },
        )

    post = Reception.respond


class InitiateMultipart(Initiate):
    """`POST` /storage/upload/initiate-multipart: the same, for an upload in parts."""

    multipart = True


class Tokens(Reception):
    """`POST` /tokens/ {allowed_apps, token_expiration}: a JSON text, in the shape of a JWT that nobody signed."""

    async def compose(self) -> Answer:
        """Return the token."""
        inputs = self.inputs()
        apps = inputs.get("allowed_apps")
        if not isinstance(apps, list) or not all(isinstance(app, str) for app in apps):
            return failure(422, detail=misplaced("allowed_apps", "list_type", "Input should be a valid list"))
        seconds = inputs.get("token_expiration", TOKEN_SECONDS)
        if not isinstance(seconds, int):
            return failure(422, detail=misplaced("token_expiration", "int_type", "Input should be a valid integer"))
        claims = {"allowed_apps": apps, "exp": int(self.world.wall()) + seconds}
        return as_json(
            200, ".".join((_coded({"alg": "none", "typ": "JWT"}), _coded(claims), secrets.token_urlsafe(24)))
        )

    post = Reception.respond


def _coded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
