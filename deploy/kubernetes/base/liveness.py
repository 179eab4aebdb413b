"""Tell by the exit status whether the process of this container turns: its port in, 0 or 1 and one line out.

For livenessProbe and startupProbe: the process itself says on its metrics port how long its slowest loop has stood
still, so Redis being away is no reason to start it anew. Whether it is of use is another question, for
`maskwatch health` and readinessProbe.

    python liveness.py PORT
"""

from __future__ import annotations

import os
import sys
import urllib.request

LOOP_AGE = "maskwatch_loop_age_seconds"
STUCK_S = 15.0  # as pipeline/runtime/watchdog.py has it
ANSWER_S = 6.0


def main() -> int:
    """Return 0 when the loop turns, 1 when it stands or nothing can be learnt of it."""
    url = f"http://127.0.0.1:{sys.argv[1]}/metrics"
    token = os.environ.get("MASKWATCH_METRICS_TOKEN", "")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310 -- http, written above
            age_s = loop_age_s(answer.read().decode())
    except (OSError, ValueError) as error:
        print(f"{url}: {error}")
        return 1
    print(f"the loop turned {age_s:.0f} s ago")
    return 0 if age_s <= STUCK_S else 1


def loop_age_s(text: str) -> float:
    """Return the age that stands in the metrics.

    Raises:
        ValueError: none stands there.
    """
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == LOOP_AGE:
            return float(value)
    raise ValueError(f"no {LOOP_AGE} is told")


if __name__ == "__main__":
    sys.exit(main())
