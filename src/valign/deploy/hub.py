"""Controls on the Hugging Face Hub: two data files and a card, no code.

    control.safetensors   what `control.save` writes
    control.json          its SHA-256, and the format; a file that differs from it is refused
    README.md             the card

The same three files in a local folder are read and written alike.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from valign.control.control import Control
from valign.control.saving import load
from valign.deploy.card import card
from valign.deploy.certificate import sha256 as file_sha256
from valign.deploy.errors import HubError

if TYPE_CHECKING:
    from valign.study.results import Results

FORMAT = "valign-hub/1"
CONTROL, INDEX, CARD = "control.safetensors", "control.json", "README.md"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HEX = re.compile(r"[0-9a-f]{64}")


def save_pretrained(
    control: Control, folder: str | Path, *, results: Results | None = None, repo: str = ""
) -> Path:
    """Write the control with its card and its hash into a folder.

    Args:
        control: what to write.
        folder: made if missing.
        results: of the run that measured it, for the card.
        repo: name it will have on the Hub, for the card.
    """
    folder = Path(folder)
    path = control.save(folder / CONTROL)
    index = {"format": FORMAT, "kind": control.kind, "sha256": {CONTROL: file_sha256(path)}}
    (folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", "utf-8")
    (folder / CARD).write_text(card(control, repo=repo, results=results), "utf-8")
    return folder


def push_to_hub(
    control: Control,
    repo: str,
    *,
    results: Results | None = None,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    message: str = "Upload control",
    endpoint: str | None = None,
) -> str:
    """Upload a control with its card, in one commit; the repository is made if it is not there.

    Args:
        control: what to upload.
        repo: `user/name`.
        results: of the run that measured it, for the card.
        private: for a new repository; None takes the owner's default.
        token: None takes the one you are logged in with.
        revision: branch; None is the main one.
        message: of the commit.
        endpoint: another Hub than HF_ENDPOINT or huggingface.co.

    Returns:
        The commit's hash, to be given as `revision` when loading.

    Raises:
        HubError: the Hub refused, or was not reached; the message carries its words.
    """
    import tempfile

    from huggingface_hub import CommitOperationAdd, HfApi

    _check_name(repo)
    api = HfApi(endpoint=endpoint, token=token)
    with tempfile.TemporaryDirectory() as made:
        folder = save_pretrained(control, made, results=results, repo=repo)
        files = [CommitOperationAdd(name, str(folder / name)) for name in (CONTROL, INDEX, CARD)]
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            commit = api.create_commit(repo, files, commit_message=message, revision=revision)
        except Exception as error:  # network, rights, validation: the Hub's client has dozens
            raise HubError(
                f"Cannot upload to {repo}: {_first_line(error)} Check the name, the network and "
                "your rights (`hf auth login`)."
            ) from error
    return str(commit.oid)


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    sha256: str | None = None,
    endpoint: str | None = None,
) -> Control:
    """A control from the Hub, or from a folder that holds the same files.

    Only `control.json` and `control.safetensors` are fetched; nothing that comes is run.

    Args:
        name: `user/name`, or a folder.
        revision: branch, tag or commit; a commit stays what it is.
        token: for private repositories; None takes the one you are logged in with, False none.
        sha256: the hash you expect of control.safetensors, if you know it.
        endpoint: another Hub than HF_ENDPOINT or huggingface.co.

    Raises:
        HubError: not found, not reached, or a file that is not what its hash says.
        ControlFileError: a file that is no control.
    """
    local = Path(name).is_dir()
    folder = Path(name) if local else _fetch(str(name), revision, token, endpoint)
    expected = _expected(folder / INDEX, str(name))
    if sha256 is not None and sha256.lower() != expected:
        raise HubError(
            f"{name} holds a control with SHA-256 {expected}, not the one you asked for "
            f"({sha256}). Name its commit with revision=, or check where the hash came from."
        )
    path = folder / CONTROL
    if not path.is_file() or file_sha256(path) != expected:
        raise HubError(
            f"{CONTROL} of {name} is missing or not what {INDEX} says: damaged or tampered with. "
            "Fetch it again (delete it from the Hub cache first), or ask its author."
        )
    return load(path)


def _fetch(name: str, revision: str | None, token: str | bool | None, endpoint: str | None) -> Path:
    """Folder of the two files, both from one commit."""
    from huggingface_hub import hf_hub_download

    _check_name(name)
    try:
        index = Path(hf_hub_download(name, INDEX, revision=revision, token=token,
                                     endpoint=endpoint))  # fmt: skip
        commit = index.parent.name  # the cache keeps each commit in a folder of its name
        hf_hub_download(name, CONTROL, revision=commit, token=token, endpoint=endpoint)
    except Exception as error:  # as above
        raise HubError(
            f"Cannot fetch a control from {name}: {_first_line(error)} Expected the name of a "
            "repository that `push_to_hub` wrote, or a folder; check the name and the network."
        ) from error
    return index.parent


def _expected(index: Path, name: str) -> str:
    try:
        head = json.loads(index.read_text("utf-8"))
        digest = head["sha256"][CONTROL]
        if head["format"] != FORMAT or not _HEX.fullmatch(digest):
            raise ValueError(f"expected {FORMAT} with a SHA-256")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HubError(
            f"{name} has no readable {INDEX} ({error}). Expected what `push_to_hub` or "
            "`save_pretrained` writes; a bare control file is read by `valign.load_control`."
        ) from None
    return str(digest)


def _check_name(name: str) -> None:
    if not _REPO.fullmatch(name) or ".." in name:
        raise HubError(f"{name!r} is neither a folder nor the name of a repository (user/name).")


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0].strip()
    return line if line.endswith(".") else f"{line}."
