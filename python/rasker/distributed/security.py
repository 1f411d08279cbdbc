"""`Security`: what a client shows and what it trusts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

from rasker.distributed.not_built import not_built

_FIELDS = (
    "tls_ca_file",
    "tls_client_cert",
    "tls_client_key",
    "tls_scheduler_cert",
    "tls_scheduler_key",
    "tls_worker_cert",
    "tls_worker_key",
    "tls_fingerprint",
    "token_file",
)
_KEYS = {
    "tls_ca_file": "distributed.comm.tls.ca-file",
    "tls_fingerprint": "distributed.comm.tls.fingerprint",
    "token_file": "distributed.comm.token-file",
}


class Security:
    """Files with certificates, keys and the token of a cluster.

    Parameters
    ----------
    require_encryption : bool, optional
        Refuse connections without TLS to other computers.  It is refused anyway unless the
        scheduler was started with ``--insecure``.
    tls_ca_file : str, optional
        The certificate that has signed the scheduler's.
    tls_fingerprint : str, optional
        Or the fingerprint of the scheduler's own certificate.
    token_file : str, optional
        A file (mode 0600) with the token that every peer must show.
    tls_client_cert, tls_client_key, tls_worker_cert, tls_worker_key : str, optional
        Kept for Dask's sake: peers show the token here, not certificates.
    tls_scheduler_cert, tls_scheduler_key : str, optional
        For `rasker scheduler`.

    Raises
    ------
    TypeError
        When called, for arguments that are not known.

    Examples
    --------
    >>> Security(token_file="/run/rasker/token")
    Security(token_file='/run/rasker/token')
    """

    def __init__(self, require_encryption: bool | None = None, **kwargs: Any) -> None:
        from rasker import config

        unknown = [k for k in kwargs if k not in _FIELDS]
        if unknown:
            raise TypeError(
                f"Security has no argument {', '.join(map(repr, unknown))}; "
                f"it has {', '.join(_FIELDS)}"
            )
        self.require_encryption = config.get(
            "distributed.comm.require-encryption", None, override_with=require_encryption
        )
        for name in _FIELDS:
            role, _, part = name.removeprefix("tls_").partition("_")
            key = _KEYS.get(name, f"distributed.comm.tls.{role}.{part}")
            setattr(self, name, config.get(key, None, override_with=kwargs.get(name)))

    @classmethod
    def temporary(cls, **kwargs: Any) -> Security:
        """Not built yet: certificates made for one program."""
        not_built("Security.temporary", "clusters of one computer need none; they use a token")

    def get_tls_config_for_role(self, role: str) -> dict[str, str | None]:
        """The files for 'client', 'scheduler' or 'worker'."""
        if role not in ("client", "scheduler", "worker"):
            raise ValueError(f"role must be 'client', 'scheduler' or 'worker', not {role!r}")
        return {
            "ca_file": self.tls_ca_file,  # type: ignore[attr-defined]
            "cert": getattr(self, f"tls_{role}_cert"),
            "key": getattr(self, f"tls_{role}_key"),
        }

    def _connection(self) -> dict[str, Any]:
        """The arguments of the extension module's `connect`."""
        return {
            "token_file": self.token_file,  # type: ignore[attr-defined]
            "tls_ca_file": self.tls_ca_file,  # type: ignore[attr-defined]
            "tls_fingerprint": self.tls_fingerprint,  # type: ignore[attr-defined]
        }

    def __repr__(self) -> str:
        named = [(n, getattr(self, n)) for n in ("require_encryption", *_FIELDS)]
        return f"Security({', '.join(f'{n}={v!r}' for n, v in named if v is not None)})"
