"""Check that the main loop of this container's process runs: its port in, exit status 0 or 1 and one line out.

For livenessProbe and startupProbe. The process reports on its metrics port how long ago its slowest loop last ran, so a
missing Redis does not justify a restart. Whether it works is checked by `maskwatch health`, for readinessProbe.

    python liveness.py PORT
"""

from __future__ import annotations

import os
import re
import sys
import urllib.request

LOOP_AGE = re.compile(r"^maskwatch_loop_age_seconds (\S+)$", re.MULTILINE)
STUCK_S = 15.0  # as in pipeline/runtime/watchdog.py
TIMEOUT_S = 6.0


def main() -> int:
    """Return 0 when the loop runs, 1 when it is stuck or its age cannot be read."""
    url = f"http://127.0.0.1:{sys.argv[1]}/metrics"
    token = os.environ.get("MASKWATCH_METRICS_TOKEN", "")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 -- http, see above
            found = LOOP_AGE.search(response.read().decode())
        if found is None:
            raise ValueError("the metrics do not contain maskwatch_loop_age_seconds")
        age_s = float(found[1])
    except (OSError, ValueError) as error:
        print(f"{url}: {error}")
        return 1
    print(f"the loop ran {age_s:.0f} s ago")
    return 0 if age_s <= STUCK_S else 1


if __name__ == "__main__":
    sys.exit(main())
