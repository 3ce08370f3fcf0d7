"""For the tour on a machine without curl: the options of it that the tour uses, on the standard library."""

import argparse
import sys
import urllib.error
import urllib.request


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d")
    parser.add_argument("url")
    a = parser.parse_args()
    headers = dict(line.split(": ", 1) for line in a.H)
    request = urllib.request.Request(a.url, data=a.d.encode() if a.d else None, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            sys.stdout.write(answer.read().decode())
    except urllib.error.HTTPError as error:
        sys.stdout.write(error.read().decode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
