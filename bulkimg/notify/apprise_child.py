"""Send one message with apprise, or only check addresses. It is a program of its own and imports nothing of bulkimg.

Reads {"addresses", "title", "body"} from standard input. Exits 0 (sent), 3 (unknown address), 4 (not delivered) or 5
(apprise is missing). It prints nothing, because apprise's own texts may hold an address.

Reads {"check": [[address, …], …]} instead to check: it writes, on a last line of its own, the position (from 1) of the
first unknown address of each list, 0 where all are known, and exits 0. Nothing is sent.
"""

import json
import logging
import sys


def main() -> int:
    given = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)
    try:
        import apprise  # type: ignore[import-not-found,unused-ignore] # an extra
    except ImportError:
        return 5
    if "check" in given:
        known = [[bool(apprise.Apprise().add(address)) for address in group] for group in given["check"]]
        unknown = [group.index(False) + 1 if False in group else 0 for group in known]
        sys.stdout.write(f"\n{json.dumps(unknown)}\n")
        return 0
    sender = apprise.Apprise()
    if not all([sender.add(address) for address in given["addresses"]]):
        return 3
    return 0 if sender.notify(title=given["title"], body=given["body"], body_format="text") else 4


if __name__ == "__main__":
    sys.exit(main())
