"""The ledger process as a gateway would run it, telling the test what its listeners hear.

`python -m tests.ledger.keeper URL SPOOL GATEWAY_ID [PARENT]`: claims the folder, then serves until SIGTERM, or until
its parent (or the process of that id) is not its parent any more.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gateway.ledger.ledger import Ledger
from gateway.ledger.spool import Spool
from gateway.ledger.spool_folder import claim_folder
from gateway.ledger.writer import LedgerWriter, Listeners, serve_ledger
from gateway.telemetry.log.log import Log
from tests.ledger.rows import tell


def main(url: str, root: str, gateway_id: str, parent: str = "") -> None:
    """Serve as the arguments say."""
    log = Log()
    log.install()
    folder = claim_folder(Path(root), gateway_id)
    listeners = Listeners(
        on_ready=lambda is_up: tell("ready", is_up),
        on_changed=lambda changes: tell("changed", [(old and old.status, new.status, new.id) for old, new in changes]),
        on_finished=lambda entries: tell("finished", [entry.id for entry in entries]),
        on_batch=lambda: None,
        on_gauges=lambda gauges: tell("gauges", gauges),
    )
    writer = LedgerWriter(Ledger(url), Spool(Path(root), folder.path), listeners=listeners)
    serve_ledger(writer, parent=int(parent or os.getppid()))
    folder.close()


main(*sys.argv[1:])
