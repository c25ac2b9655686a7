"""The commands about releases: keys, signatures, and what runs on a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli_options import Json
from harness.errors import ExitCode, HarnessError

if TYPE_CHECKING:
    from harness.device.install import Installed
    from harness.export.keys import KeyStore, KnownKey, Trust
    from harness.export.verify import Order, VerifyReport

PASSPHRASE = "HARNESS_KEY_PASSPHRASE"

KeysFolder = Annotated[
    Path | None,
    typer.Option(
        "--keys", help="Folder with the keys; by default $HARNESS_KEYS, else ~/.config/dragongate/keys."
    ),
]
KeyName = Annotated[
    str, typer.Argument(help="A key's name, its id or the beginning of it.", show_default=False)
]
KeyFile = Annotated[
    Path | None, typer.Option("--key", help="A public key in PEM, which must have signed the release.")
]
DeviceFolder = Annotated[Path, typer.Argument(help="The device's folder.", show_default=False)]
ModelName = Annotated[
    str | None, typer.Option("--name", help="The model's name on the device; the recipe's by default.")
]
Folder = Annotated[Path, typer.Argument(help="A release folder.", show_default=False)]

keys = typer.Typer(
    no_args_is_help=True, help="The keys that sign releases, and those that are trusted.\n\n"
    "Example: harness keys new --name maker", rich_markup_mode=None,
)  # fmt: skip


def add_release(app: typer.Typer) -> None:
    """Puts the commands of this file among the others."""
    for command in (verify, sign, install, rollback):
        app.command()(command)
    app.add_typer(keys, name="keys")


def verify(
    folder: Folder,
    key: KeyFile = None,
    signed: Annotated[bool, typer.Option("--signed", help="Refuse what no key of the trust store signed.")] = False,
    after: Annotated[
        str | None,
        typer.Option(metavar="VERSION[.SEQUENCE]", help="Refuse what is not shown to be newer than this."),
    ] = None,
    keys_folder: KeysFolder = None, json_out: Json = False,
) -> None:  # fmt: skip
    """Checks every byte and claim of a release folder.

    That the verdict is PASS for exactly these bytes, among others; and with --key or --signed, who says so.

    Example: harness verify releases/demo-1a2b3c4d --key maker.pem
    """
    from harness.export.verify import verify as verify_release

    trust = _trust(_store(keys_folder), key, is_demanded=signed)
    _tell(verify_release(folder, trust, after=_order(after) if after else None), json_out)


def sign(
    folder: Folder,
    key: Annotated[str | None, typer.Option("--key", help="The key's name or id, where there are several.")] = None,
    keys_folder: KeysFolder = None, json_out: Json = False,
) -> None:  # fmt: skip
    """Signs a release folder, after it has verified.

    `harness release` does so by itself where there is one key; this is for a key with a passphrase.

    Example: harness sign releases/demo-1a2b3c4d --key maker
    """
    from harness.export.release import sign_release

    store = _store(keys_folder)
    entry = store.find(key) if key else _only_key(store)
    trust = _trust(store, None, is_demanded=True)
    _tell(sign_release(folder, store.signer(entry, _passphrase(store, entry)), trust), json_out)


def install(
    release: Folder,
    device: DeviceFolder,
    name: ModelName = None,
    key: KeyFile = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Take a release that no trusted key signed.")
    ] = False,
    downgrade: Annotated[
        str,
        typer.Option("--allow-downgrade", metavar="REASON", help="Take one that is not newer, for this reason."),
    ] = "",
    keys_folder: KeysFolder = None, json_out: Json = False,
) -> None:  # fmt: skip
    """Puts a release in place on a device, whole or not at all.

    It must be signed by a trusted key and newer than everything installed before; the copy is verified before the
    switch, which is one rename. The release before is kept for `harness rollback`.

    Example: harness install releases/demo-1a2b3c4d /srv/edge --key maker.pem
    """
    from harness.device.install import install as put_in_place

    trust = _trust(_store(keys_folder), key, is_demanded=not allow_unsigned)
    _tell_installed(put_in_place(release, device, trust, name=name, downgrade_reason=downgrade), json_out)


def rollback(
    device: DeviceFolder,
    name: ModelName = None,
    reason: Annotated[str, typer.Option(help="Why; the audit log keeps it.")] = "",
    keys_folder: KeysFolder = None, json_out: Json = False,
) -> None:  # fmt: skip
    """Brings back the release that ran before, in one rename.

    Example: harness rollback /srv/edge --name demo --reason "answers too slowly"
    """
    from harness.device.install import rollback as bring_back

    trust = _trust(_store(keys_folder), None, is_demanded=False)
    _tell_installed(bring_back(device, trust, name=name, reason=reason), json_out)


@keys.command("new")
def new_key(
    name: Annotated[str, typer.Option(help="Whose key it is.", show_default=False)],
    encrypted: Annotated[
        bool, typer.Option("--passphrase", help=f"Encrypt it; ${PASSPHRASE} or the terminal says under what.")
    ] = False,
    keys_folder: KeysFolder = None, json_out: Json = False,
) -> None:  # fmt: skip
    """Makes an Ed25519 key pair that is trusted here.

    Example: harness keys new --name maker --passphrase
    """
    import os

    asked = os.environ.get(PASSPHRASE) if encrypted else ""
    if asked is None:
        asked = typer.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True)
    if encrypted and not asked:
        raise HarnessError("an empty passphrase encrypts nothing")
    entry = _store(keys_folder).new(name, asked.encode() or None)
    _tell_keys([entry], json_out)


@keys.command("list")
def list_keys(keys_folder: KeysFolder = None, json_out: Json = False) -> None:
    """All known keys: whose, since when, trusted or revoked, and whether they can sign here.

    Example: harness keys list
    """
    store = _store(keys_folder)
    _tell_keys(list(store.known().values()), json_out, [entry.id for entry in store.signing_keys()])
    if not store.known():
        typer.echo(f"no keys in {store.folder}; make one with: harness keys new --name NAME", err=True)


@keys.command("show")
def show_key(name: KeyName, keys_folder: KeysFolder = None, json_out: Json = False) -> None:
    """A public key as PEM, for `harness keys trust` on another machine.

    Example: harness keys show maker > maker.pem
    """
    from harness.export.keys import public_pem

    entry = _store(keys_folder).find(name)
    if json_out:
        _tell_keys([entry], json_out)
    else:
        typer.echo(public_pem(entry), nl=False)


@keys.command("trust")
def trust_key(
    pem: Annotated[Path, typer.Argument(help="A public key in PEM.", show_default=False)],
    name: Annotated[str, typer.Option(help="Whose key it is.", show_default=False)],
    keys_folder: KeysFolder = None, json_out: Json = False,
) -> None:  # fmt: skip
    """Takes a public key into the trust store.

    Example: harness keys trust maker.pem --name maker
    """
    _tell_keys([_store(keys_folder).trust(pem, name)], json_out)


@keys.command("revoke")
def revoke_key(
    name: KeyName,
    reason: Annotated[str, typer.Option(help="Why, in a few words.", show_default=False)],
    keys_folder: KeysFolder = None, json_out: Json = False,
) -> None:  # fmt: skip
    """Ends the trust in a key, for good: what it signed verifies no more.

    Example: harness keys revoke maker --reason "laptop lost"
    """
    _tell_keys([_store(keys_folder).revoke(name, reason)], json_out)


def _store(folder: Path | None) -> KeyStore:
    from harness.export.keys import KeyStore

    return KeyStore(folder)


def _trust(store: KeyStore, pem: Path | None, *, is_demanded: bool) -> Trust:
    from harness.export.keys import trust_of

    return trust_of(store, pem, is_demanded=is_demanded)


def _only_key(store: KeyStore) -> KnownKey:
    found = store.signing_keys()
    if len(found) == 1:
        return found[0]
    if found:
        raise HarnessError(f"{len(found)} keys can sign", hint="name one: --key NAME; harness keys list")
    raise HarnessError(f"no key in {store.folder} can sign", hint="harness keys new --name NAME")


def _passphrase(store: KeyStore, entry: KnownKey) -> bytes | None:
    import os
    import sys

    if not store.needs_passphrase(entry):
        return None
    said = os.environ.get(PASSPHRASE)
    if said is None and sys.stdin.isatty():
        said = typer.prompt(f"passphrase of {entry.name}", hide_input=True, err=True)
    return said.encode() if said is not None else None


def _order(text: str) -> Order:
    from harness.export.verify import Order

    version, _, sequence = text.partition(".")
    try:
        return Order(int(version), int(sequence) if sequence else None)
    except ValueError as error:
        raise HarnessError(
            f"--after {text}: no version", hint="such as --after 3 or --after 3.1795000000"
        ) from error


def _tell(report: VerifyReport, json_out: bool) -> None:
    if json_out:
        typer.echo(json.dumps(report.to_json(), ensure_ascii=False, indent=1))
    else:
        from harness.text import visible

        for check in report.checks:
            typer.echo(f"{'✓' if check.ok else '✗'} {visible(check.name)}: {visible(check.detail)}")
        typer.echo(f"verified; {visible(report.signature, keep_newlines=False)}" if report.ok else "REFUSED")
    raise typer.Exit(ExitCode.DONE if report.ok else ExitCode.GATE_FAILED)


def _tell_installed(found: Installed, json_out: bool) -> None:
    from harness.text import visible

    if json_out:
        document = {**found._asdict(), "current": str(found.current)}
        typer.echo(json.dumps(document, ensure_ascii=False, indent=1))
        return
    said = "in place" if found.is_changed else "in place already"
    before = f", before it {found.before[:16]}…" if found.before else ""
    typer.echo(visible(f"{found.name}: {found.release[:16]}… is {said}{before}", keep_newlines=False))
    typer.echo(visible(f"{found.current}  {found.signature}", keep_newlines=False))


def _tell_keys(found: list[KnownKey], json_out: bool, signing: list[str] | None = None) -> None:
    from harness.text import visible

    if json_out:
        typer.echo(
            json.dumps([_key_document(entry, signing) for entry in found], ensure_ascii=False, indent=1)
        )
        return
    for entry in found:
        can = " · signs here" if signing and entry.id in signing else ""
        why = f" · {entry.reason}" if entry.reason else ""
        row = f"{entry.id[:16]}  {entry.state:<8}  {entry.since}  {entry.name}{can}{why}"
        typer.echo(visible(row, keep_newlines=False))


def _key_document(entry: KnownKey, signing: list[str] | None) -> dict[str, Any]:
    from dataclasses import asdict

    can = {} if signing is None else {"signs_here": entry.id in signing}
    return {**asdict(entry), **can}
