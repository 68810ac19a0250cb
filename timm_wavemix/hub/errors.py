"""Whose fault it is: one sentence for an error of the Hub, of its storage, of what lies between, or of this machine."""
import errno
import json
import os
import re
from typing import Any, Optional
from urllib.parse import urlsplit

from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from ..checkpoints import one_line


def explain(error: BaseException) -> str:
    """A hint at who failed and at the fix, with what the server or the library says itself."""
    response = _response_of(error)
    if response is not None:
        return _explain_response(response, str(getattr(error, 'server_message', None) or ''))
    reason, endpoint = one_line(error), HfApi().endpoint
    if isinstance(error, json.JSONDecodeError):
        return (
            f'the answer from {endpoint} is not the Hub\'s, but perhaps the login page of a network ({reason}): open it '
            'in a browser.')
    if isinstance(error, (AttributeError, KeyError, TypeError)):
        return f'the answer of the Hub lacks an entry ({reason}): run the command again later.'
    if re.search('xet|xorb', reason, re.IGNORECASE):
        return f'the transfer by Xet failed ({reason}): set HF_HUB_DISABLE_XET=1 to upload without it.'
    kinds = ' '.join(f'{kind.__module__}.{kind.__name__}' for kind in type(error).__mro__)
    if 'ProxyError' in kinds:
        return f'the proxy does not connect to the Hub ({reason}): check HTTPS_PROXY.'
    if isinstance(error, OfflineModeIsEnabled):
        return f'{reason}.'
    if 'httpx' in kinds or isinstance(error, (ConnectionError, TimeoutError)):
        return f'{endpoint} cannot be reached ({reason}): check the network, and HF_ENDPOINT if it is set.'
    if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT) or 'No space left' in reason:
        return f'the disk of this machine is full ({reason}): free some space, or set TMPDIR to a folder elsewhere.'
    if isinstance(error, OSError):
        return f'this machine fails ({reason}).'
    return f'{reason}.'


def is_refusal(error: BaseException) -> bool:
    """Whether the server said no, after which nothing has changed there."""
    response = _response_of(error)
    return response is not None and 400 <= response.status_code < 500 and response.status_code != 408


def _response_of(error: Optional[BaseException]) -> Any:
    while error is not None and getattr(error, 'response', None) is None:
        error = error.__cause__
    return getattr(error, 'response', None)


def _explain_response(response: Any, message: str) -> str:
    status, url = response.status_code, urlsplit(str(response.request.url))
    is_page = 'text/html' in response.headers.get('content-type', '')
    said = f'{status} {one_line(Exception(message)) if message and not is_page else response.reason_phrase}'
    hub, where = urlsplit(HfApi().endpoint).netloc, url.netloc
    again = 'run the command again later'
    if status == 407:
        return f'the proxy wants a login ({said}): put it into HTTPS_PROXY.'
    if status == 511 or status < 400 or (is_page and status not in (429, 500, 502, 503, 504)):
        return f'a login page, proxy or firewall of the network answers for {where} ({said}): open it in a browser.'
    if 'xet' in url.path or 'xet' in message.lower():
        return f'Xet refuses the transfer ({said}): set HF_HUB_DISABLE_XET=1 to upload without it.'
    if where != hub:
        return f'the storage at {where} refuses or fails ({said}): {again}.'
    if status == 401:
        login = 'set HF_TOKEN to a valid token' if os.environ.get('HF_TOKEN') else 'run `hf auth login`'
        return f'the Hub does not accept the token ({said}): {login}.'
    if status == 404:
        return f'the Hub does not find it, or not for this token ({said}): check the name, and `hf auth whoami`.'
    if status == 412:
        return f'the branch moved meanwhile ({said}): run the command again.'
    if status == 429 or status == 408 or status >= 500:
        return f'the Hub {"limits requests" if status == 429 else "fails"} ({said}): {again}.'
    return f'the Hub refuses ({said}).'
