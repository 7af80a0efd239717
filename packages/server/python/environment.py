"""
What `tomaat import --command` asks of an author's Python: where its environment lies, and which packages it holds, as the lines of
a requirements.lock that pip installs elsewhere. It imports nothing but Python's own library, and writes nothing.

stdout has one line: {"type": "result", "result": {"prefix": …, "lock": …, "notes": [...]}}.
"""

import json
import os
import platform
import re
import sys
from importlib import metadata
from urllib.parse import urlsplit, urlunsplit


def without_login(url):
    """A URL without the name and password that one may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def requirement(name, version, origin):
    """
    A line of the lock, and a note if it needs a person. `origin` is direct_url.json (PEP 610) or None: a folder or a file of this
    machine, a version control system, an archive.
    """
    if origin is None:
        return f"{name}=={version}", None
    url = without_login(origin.get("url", ""))
    if url.startswith("file:"):
        note = f"{name} {version} was installed from a file or folder of the author's machine: install it by hand"
        return f"# {note}", note
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return f"{name} @ {vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}", f"{name} {version} comes from {url}"
    digest = origin.get("archive_info", {}).get("hash", "")
    return f"{name} @ {url}" + (f"#{digest}" if digest else ""), f"{name} {version} comes from {url}"


gpu_build = re.compile(r"torch[a-z]*==[^+]*\+(cpu|cu[0-9]+|rocm[0-9.]+)$")


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock():
    found, notes = {}, []
    for one in metadata.distributions():
        name = one.metadata["Name"]
        if not name or canonical(name) in found:  # the first on sys.path is the one that is imported
            continue
        text = one.read_text("direct_url.json")
        line, note = requirement(name, one.version, json.loads(text) if text else None)
        found[canonical(name)] = line
        if note:
            notes.append(note)
    lines = [f"# Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    if os.path.isdir(os.path.join(sys.prefix, "conda-meta")):
        notes.append("The environment is one of conda: its packages that are not Python's own are not in requirements.lock")
        lines.append("# An environment of conda: packages that are not distributions of Python are missing here.")
    # Builds of torch for one kind of GPU are not on PyPI.
    builds = {match.group(1) for match in map(gpu_build.match, found.values()) if match}
    lines += [f"--extra-index-url https://download.pytorch.org/whl/{build}" for build in sorted(builds)]
    return "\n".join(lines + [found[name] for name in sorted(found)]) + "\n", notes


def main():
    lock, notes = read_lock()
    result = {"prefix": sys.prefix, "lock": lock, "notes": notes}
    print(json.dumps({"type": "result", "result": result}), flush=True)


if __name__ == "__main__":
    main()
