"""For the tour on a machine without curl: the options of it that the tour uses, on the standard library."""

import argparse
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d")
    parser.add_argument("-o", type=Path)
    parser.add_argument("--cacert")
    parser.add_argument("url")
    a = parser.parse_args()
    headers = dict(line.split(": ", 1) for line in a.H)
    request = urllib.request.Request(a.url, data=a.d.encode() if a.d else None, headers=headers)
    context = ssl.create_default_context(cafile=a.cacert)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except urllib.error.URLError as error:
        print(f"curl: {error.reason}", file=sys.stderr)
        return 60 if isinstance(error.reason, ssl.SSLError) else 7
    if a.o:
        a.o.write_bytes(body)
    else:
        sys.stdout.write(body.decode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
