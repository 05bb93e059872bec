"""The gateway's certificate, as the service's own processes see it."""

import ssl
from pathlib import Path

from attune.errors import SettingsError


def certificate_name(certificate: Path, key: Path) -> str:
    """A name that the certificate is for, such as `attune.example.org`, found by a handshake with itself.

    Raises:
        SettingsError: if the two files do not make a server that a client could trust.
    """
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False  # the name is what is asked
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is trusted, whoever signed it
        client.load_verify_locations(certificate)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client_end = client.wrap_bio(to_client, to_server)
        server_end = server.wrap_bio(to_server, to_client, server_side=True)
        for end in (client_end, server_end, client_end, server_end):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:  # it waits for the other end
                continue
        peer = client_end.getpeercert() or {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"ATTUNE_TLS_CERTIFICATE = {certificate} and ATTUNE_TLS_KEY cannot be used: {error}") from error
    names = [pair[1] for pair in peer.get("subjectAltName", ())]
    if not names:
        raise SettingsError(f"ATTUNE_TLS_CERTIFICATE = {certificate} is for no name: it has no subjectAltName")
    return str(names[0]).replace("*", "attune")
