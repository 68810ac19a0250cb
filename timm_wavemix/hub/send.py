"""Send a folder to the Hub in one commit, and compare what the Hub then has with the folder."""
import time
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple, Type

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo

from .errors import explain, is_refusal
from .metadata import HPARAMS

TITLE = 'Push the model with timm_wavemix'  # of commits and pull requests
WAITS = 0, 2, 4  # seconds before each look for a commit whose answer was lost: a slow server may still make it


@dataclass(frozen=True)
class Target:
    """Where a folder goes: to a repository, created `private` if it does not exist, and there to the branch `revision`
    (None for main), created if it does not exist, or to a new pull request."""
    repo_id: str
    revision: Optional[str] = None
    create_pr: bool = False
    private: bool = False


def read_token() -> Optional[str]:
    """The token of HF_TOKEN or of `hf auth login`, if there is one; raises ValueError if no server can take it."""
    where = 'check HF_TOKEN, HF_TOKEN_PATH and HF_OIDC_RESOURCE, or run `hf auth login`.'
    try:
        token = get_token()
    except Exception as error:  # whose text may quote the token
        raise ValueError(f'The token of the Hub cannot be read ({type(error).__name__}): {where}') from None
    if token and not (token.isascii() and token.isprintable()):
        raise ValueError(f'The token of the Hub has a control or invisible character: {where}')
    return token


def publish(folder: Path, target: Target, token: str) -> str:
    """Send the files of a folder in one commit on top of the one that is looked at, and compare their checksums.

    They replace files of the same names. Others stay, except the arguments of another training.
    Returns a sentence with the link to the commit or pull request; raises RuntimeError or KeyboardInterrupt with one
    that says what is on the Hub all the same.
    """
    sending = _Sending(HfApi(token=token, library_name='timm_wavemix'), folder, target)
    try:
        return sending.run()
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f'{sending.state}.') from interrupt
    except Exception as error:
        raise RuntimeError(f'{sending.state}: {explain(error, target.repo_id)}') from error


@dataclass
class _Sending:
    """A push under way, whose `state` is true at every moment, whatever breaks it off."""
    api: HfApi
    folder: Path
    target: Target
    state: str = 'Nothing was published'

    def run(self) -> str:
        head = self.look()
        found = self.find(head) if self.target.create_pr else None
        url, oid = found or self.commit(head)
        self.state = f'{url} was published, but not verified; run the same command again to verify it'
        if wrong := self.differing(oid):
            self.state = f'{url} was published, but {" and ".join(wrong)} are missing or different there'
            raise ValueError('run the command again, and look for a .gitignore in the repository that names them')
        return f'{"Already up to date" if found or oid == head.sha else "Done"}, checksums verified: {url}'

    def look(self) -> ModelInfo:
        """The head of the branch, after repository and branch are created if they do not exist."""
        repo_id, branch, private = self.target.repo_id, self.target.revision, self.target.private
        # neither with exist_ok, which hides the reason of a 409; private=None is the owner's default
        info = self.get_or_create('an empty repository', RepositoryNotFoundError, None, lambda: self.api.create_repo(
            repo_id, private=private or None))
        if private and not info.private:
            raise ValueError(f'{repo_id} is public, make it private in its settings or push without --private')
        return info if not branch else self.get_or_create(
            f"the branch '{branch}'", RevisionNotFoundError, branch, lambda: self.api.create_branch(
                repo_id, branch=branch))

    def get_or_create(
            self, what: str, missing: Type[Exception], revision: Optional[str], create: Callable[[], Any]) -> ModelInfo:
        try:
            return self.api.model_info(self.target.repo_id, revision=revision)
        except missing:
            before, self.state = self.state, f'Nothing was published, but {what} may have been created'
        try:
            create()
        except Exception as error:
            self.state = before if is_refusal(error) else self.state
            raise
        self.state = f'Nothing was published, but {what} was created, which the same command fills'
        return self.api.model_info(self.target.repo_id, revision=revision)

    def commit(self, head: ModelInfo) -> Tuple[str, str]:
        """Make the commit, or find it if its answer is lost; returns its link and hash."""
        operations: List[Any] = [CommitOperationAdd(file.name, file) for file in sorted(self.folder.iterdir())]
        if HPARAMS in {file.rfilename for file in head.siblings or []} and not (self.folder / HPARAMS).exists():
            operations.append(CommitOperationDelete(HPARAMS))
        before, self.state = self.state, (
            'It is not known whether the commit was made; run the same command again, which sends nothing twice')
        try:
            # validates the card before it uploads anything, and leaves out what is there already
            commit = self.api.create_commit(
                self.target.repo_id, operations, commit_message=TITLE, revision=self.target.revision,
                create_pr=self.target.create_pr, parent_commit=head.sha)
            return commit.pr_url or commit.commit_url, commit.oid
        except (Exception, KeyboardInterrupt) as error:
            interrupted, found = isinstance(error, KeyboardInterrupt), None
            for wait in () if is_refusal(error) else WAITS[:1] if interrupted else WAITS:
                time.sleep(wait)
                if found := self.find(head):
                    break
            if found and not interrupted:
                return found
            self.state = f'{found[0]} was published, but not verified' if found else before
            raise

    def find(self, head: ModelInfo) -> Optional[Tuple[str, str]]:
        """Link and revision of a commit after `head`, or of an open pull request of ours, with the folder's content."""
        repo_id, page = self.target.repo_id, f'{self.api.endpoint}/{self.target.repo_id}'
        if self.target.create_pr:
            requests = self.api.get_repo_discussions(repo_id, discussion_type='pull_request', discussion_status='open')
            places = [(f'{page}/discussions/{r.num}', f'refs/pr/{r.num}') for r in requests if r.title == TITLE]
        else:
            history = (c.commit_id for c in self.api.list_repo_commits(repo_id, revision=self.target.revision))
            places = [(f'{page}/commit/{oid}', oid) for oid in takewhile(lambda oid: oid != head.sha, history)]
        return next((place for place in places if not self.differing(place[1])), None)

    def differing(self, revision: str) -> List[str]:
        """The names of the files that a revision lacks or has otherwise."""
        found = self.api.verify_repo_checksums(self.target.repo_id, revision=revision, local_dir=self.folder)
        stale = [HPARAMS] if HPARAMS in found.missing_paths else []
        return sorted([mismatch['path'] for mismatch in found.mismatches] + found.extra_paths + stale)
