"""Whose certificates a client of HTTPS trusts, and in one line why it refused one."""

from __future__ import annotations

import ssl

from trademl.errors import ConfigError

_UNKNOWN_ISSUER = (18, 19, 20, 21)  # OpenSSL's X509_V_ERR_ codes for a chain that ends nowhere
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")


def client_context(ca_file: str = "") -> ssl.SSLContext:
    """Return what HTTPS is spoken with: certificates and names are checked.

    Parameters
    ----------
    ca_file : str
        Certificates (PEM) to trust besides those of the machine.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except FileNotFoundError as error:
            raise ConfigError(f"{ca_file}: no such file; give certificates in PEM form") from error
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{ca_file}: no certificates in PEM form ({error})") from error
    return context


def refusal(error: ssl.SSLError) -> str:
    """Return why a server was not spoken with, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        found = error.verify_message.rstrip(".")
        if error.verify_code in _UNKNOWN_ISSUER:
            advice = "give the CA that signed it (--ca-file, or ca_file of a region)"
            return f"its certificate is not trusted ({found}): {advice}"
        return f"its certificate is refused: {found}"
    if error.reason in _NO_TLS:
        return "it speaks no TLS: expected a server of https, or http:// as its url"
    return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
