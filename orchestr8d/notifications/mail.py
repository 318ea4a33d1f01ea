"""The channel `mailto://`: a mail over SMTP."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from orchestr8d.core import notices
from orchestr8d.core.notices import Mail, Notice
from orchestr8d.notifications import Undelivered
from orchestr8d.notifications.threads import in_own_thread

# Seconds that one step of the talk may take.
STEP = 10.0
_TLS_PORT = 465
_LOCAL = ("localhost", "127.0.0.1", "::1")


async def send(url: str, notice: Notice) -> None:
    where = notices.mail(url)
    message = compose(where, notice)
    opened: list[smtplib.SMTP] = []
    try:
        await in_own_thread(lambda: _deliver(where, message, opened))
    finally:
        # Whoever gives up waiting ends the talk too.
        for smtp in opened:
            if smtp.sock is not None:
                with contextlib.suppress(OSError):
                    smtp.sock.shutdown(socket.SHUT_RDWR)


def compose(where: Mail, notice: Notice) -> EmailMessage:
    """The mail; what a notice says stands in its subject, which is one line, and its body."""
    message = EmailMessage()
    message["From"] = where.sender
    message["To"] = ", ".join(where.to)
    message["Subject"] = notices.headline(notice)
    message["Date"] = format_datetime(datetime.fromtimestamp(notice.created_at / 1000, UTC))
    message["Message-ID"] = f"<{notice.id}@orchestr8d>"
    message["Auto-Submitted"] = "auto-generated"
    about = [("task", notice.task_id), ("workflow", notice.workflow_id), ("type", notice.type)]
    tail = "".join(f"\n{name}: {notices.one_line(value)}" for name, value in about if value)
    message.set_content(f"{notice.message}\n\n-- {tail}\n")
    return message


def _deliver(where: Mail, message: EmailMessage, opened: list[smtplib.SMTP]) -> None:
    try:
        smtp = _connect(where)
        opened.append(smtp)
        try:
            if where.user is not None:
                smtp.login(where.user, where.password or "")
            smtp.send_message(message)
        finally:
            # A mail that was taken is, however the talk ends.
            with contextlib.suppress(smtplib.SMTPException, OSError):
                smtp.quit()
    except smtplib.SMTPResponseException as e:
        said = e.smtp_error.decode(errors="replace") if isinstance(e.smtp_error, bytes) else str(e.smtp_error)
        raise Undelivered(f"the mail server answers {e.smtp_code}: {said}") from e
    except smtplib.SMTPRecipientsRefused as e:
        said = ", ".join(f"{to} ({code})" for to, (code, _) in e.recipients.items())
        raise Undelivered(f"the mail server refuses {said}") from e
    except (smtplib.SMTPException, OSError) as e:
        raise Undelivered(f"no mail server at {where.host}:{where.port}: {e}") from e


def _connect(where: Mail) -> smtplib.SMTP:
    if where.port == _TLS_PORT:
        return smtplib.SMTP_SSL(where.host, where.port, timeout=STEP, context=ssl.create_default_context())
    smtp = smtplib.SMTP(where.host, where.port, timeout=STEP)
    try:
        smtp.ehlo()
        # To this machine itself: nobody reads along, and its certificate is seldom one that anybody knows.
        if where.host not in _LOCAL:
            if smtp.has_extn("starttls"):
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo()
            elif where.user is not None:
                raise Undelivered("the mail server offers no encryption: the password is not sent", final=True)
    except BaseException:
        smtp.close()
        raise
    return smtp
