"""Whose fault it is: one sentence for an error of the Hub, of its storage, of what lies between, or of this machine."""
import errno
import json
import os
import re
import traceback
from typing import Any, Optional
from urllib.parse import urlsplit

from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

XET = re.compile(r'\b(hf_xet|xet|xorb)\b', re.IGNORECASE)


def explain(error: BaseException, repo_id: str = '') -> str:
    """Who failed and a hint at the fix, with what the server or the library says itself."""
    reason, endpoint = ' '.join(str(error).split()).rstrip('.') or type(error).__name__, HfApi().endpoint
    if answered := _answered(error):
        return _explain_answer(answered.response, str(getattr(answered, 'server_message', '') or ''), endpoint, repo_id)
    if isinstance(error, (AttributeError, KeyError, TypeError, json.JSONDecodeError)):
        modules = [str(frame.f_globals.get('__name__')) for frame, _ in traceback.walk_tb(error.__traceback__)]
        if not any(module.startswith('huggingface_hub.') for module in modules):  # which reads the Hub's answers
            return f'this is a bug of timm_wavemix, report it ({type(error).__name__}: {reason}).'
        return f'{endpoint} does not answer as the Hub does, is it a page for a login? ({reason})'
    if XET.search(reason.replace(repo_id, '')):
        return f'the transfer by Xet failed ({reason}): set HF_HUB_DISABLE_XET=1 to upload without it.'
    if type(error).__name__ == 'ProxyError':
        return f'the proxy does not connect to the Hub ({reason}): check HTTPS_PROXY.'
    if type(error).__module__.startswith('httpx') or isinstance(error, OfflineModeIsEnabled):
        fix = '' if isinstance(error, OfflineModeIsEnabled) else ': check the network, and HF_ENDPOINT if it is set'
        return f'{endpoint} cannot be reached ({reason}){fix}.'
    if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT) or 'No space left' in reason:
        return f'the disk of this machine is full ({reason}): free some space, or set TMPDIR to a folder elsewhere.'
    return f'{reason} (on this machine).' if isinstance(error, OSError) else f'{reason}.'


def is_refusal(error: BaseException) -> bool:
    """Whether the server said no, after which nothing has changed there."""
    status = getattr(getattr(_answered(error), 'response', None), 'status_code', 0)
    return 400 <= status < 500 and status != 408


def _answered(error: Optional[BaseException]) -> Any:
    """The error, or the one that it was raised from, that has the answer of a server."""
    while error is not None and getattr(error, 'response', None) is None:
        error = error.__cause__
    return error


def _explain_answer(response: Any, message: str, endpoint: str, repo_id: str) -> str:
    status, url = response.status_code, urlsplit(str(response.request.url))
    is_page = 'text/html' in response.headers.get('content-type', '')
    said = f"{status} {' '.join(message.split()) if message and not is_page else response.reason_phrase}"
    if status == 407:
        return f'the proxy wants a login ({said}): put it into HTTPS_PROXY.'
    if status == 511 or status < 400 or (is_page and status < 500 and status != 429):
        return f'a page of the network, for a login or of a firewall, answers for {url.netloc} ({said}): open it.'
    if XET.search(f'{url.path} {message}'.replace(repo_id, '')):
        return f'Xet refuses the transfer ({said}): set HF_HUB_DISABLE_XET=1 to upload without it.'
    if url.netloc != urlsplit(endpoint).netloc:
        return f'the storage at {url.netloc} refuses or fails ({said}): run the command again later.'
    if status == 401:
        fix = 'set HF_TOKEN to a valid token' if os.environ.get('HF_TOKEN') else 'run `hf auth login`'
        return f'the Hub does not accept the token ({said}): {fix}.'
    if response.headers.get('x-error-code') == 'RepoNotFound':
        return f'the Hub has no such repository, or not for this token ({said}): check its name, and `hf auth whoami`.'
    if status == 412:
        return f'the branch moved meanwhile ({said}): run the command again.'
    if status in (408, 429) or status >= 500:
        return f'the Hub {"limits requests" if status == 429 else "fails"} ({said}): run the command again later.'
    return f'the Hub refuses ({said}).'
