"""Send a folder to the Hub in one commit, and compare what the Hub then has with the folder."""
import time
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence, Tuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo

from .errors import explain, is_refusal

HPARAMS = 'train_hparams.yaml'  # as timm's own repositories have it
WAITS = 0, 2, 4  # seconds before each look for a commit whose answer was lost: a slow server may still make it


@dataclass(frozen=True)
class Target:
    """Where a folder goes.

    Attributes:
        repo_id: Repository, created if it does not exist.
        revision: Branch, created if it does not exist. None for main.
        create_pr: Open a pull request instead, unless main or an open one has the same content.
        private: Create the repository private.
    """
    repo_id: str
    revision: Optional[str] = None
    create_pr: bool = False
    private: bool = False


def read_token() -> Optional[str]:
    """The token of HF_TOKEN or of `hf auth login`, None if there is none.

    Raises:
        ValueError: It cannot be read, or no server would take it.
    """
    try:
        token = get_token()
    except Exception as error:
        # without the text of the error, which may quote the token
        raise ValueError(
            f'The token of the Hub cannot be read ({type(error).__name__}): check HF_TOKEN, HF_TOKEN_PATH and '
            'HF_OIDC_RESOURCE, or run `hf auth login`.') from None
    if token and not (token.isascii() and token.isprintable()):
        raise ValueError(
            'The token of the Hub has a control or invisible character: copy it again, into HF_TOKEN or '
            '`hf auth login`.')
    return token


def send(folder: Path, target: Target, token: str) -> str:
    """Send the files of a folder in one commit on top of the one that is looked at, and compare their checksums.

    They replace files of the same names. Others stay, except the arguments of another training.

    Args:
        folder: The files.
        target: Where they go.
        token: Of the Hub.

    Returns:
        A sentence with the link to the commit or pull request.

    Raises:
        RuntimeError, KeyboardInterrupt: It failed or was interrupted; the text says what is on the Hub all the same.
    """
    sending = _Sending(HfApi(token=token, library_name='timm_wavemix'), folder, target)
    try:
        return sending.run()
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f'{sending.state}.') from interrupt
    except Exception as error:
        raise RuntimeError(f'{sending.state}: {explain(error)}') from error


@dataclass
class _Sending:
    """A push under way, whose `state` is true at every moment, whatever breaks it off."""
    api: HfApi
    folder: Path
    target: Target
    state: str = 'Nothing was published'

    def run(self) -> str:
        head = self.look()
        url, oid = (self.find(head) if self.target.create_pr else None) or self.commit(head)
        self.state = f'{url} was published, but not verified; run the same command again to verify it'
        wrong = self.differing(oid)
        if wrong:
            self.state = f'{url} was published, but {" and ".join(wrong)} are missing or different there'
            raise ValueError('run the command again, and look for a .gitignore in the repository that names them')
        return f'{"Already up to date" if oid == head.sha else "Done"}, checksums verified: {url}'

    def look(self) -> ModelInfo:
        """The head of the branch, after repository and branch are created if they do not exist."""
        repo_id, revision = self.target.repo_id, self.target.revision
        try:
            info = self.api.model_info(repo_id)
        except RepositoryNotFoundError:
            # None is the owner's default. Not exist_ok, which hides any reason of a 409
            self.create(lambda: self.api.create_repo(repo_id, private=self.target.private or None), 'an empty repository')
            info = self.api.model_info(repo_id)
        if self.target.private and not info.private:
            raise ValueError(f'{repo_id} is public, make it private in its settings or push without --private')
        if revision:
            try:
                info = self.api.model_info(repo_id, revision=revision)
            except RevisionNotFoundError:
                self.create(lambda: self.api.create_branch(repo_id, branch=revision), f"the branch '{revision}'")
                info = self.api.model_info(repo_id, revision=revision)
        return info

    def create(self, request: Callable[[], Any], what: str) -> None:
        before = self.state
        self.state = f'Nothing was published, but {what} may have been created'
        try:
            request()
        except Exception as error:
            if is_refusal(error):
                self.state = before
            raise
        self.state = f'Nothing was published, but {what} was created, which the same command fills'

    def commit(self, head: ModelInfo) -> Tuple[str, str]:
        """Make the commit, or find it if its answer is lost. Returns its link and hash."""
        operations: List[Any] = [CommitOperationAdd(file.name, file) for file in sorted(self.folder.iterdir())]
        if HPARAMS in {file.rfilename for file in head.siblings or []} and not (self.folder / HPARAMS).exists():
            operations.append(CommitOperationDelete(HPARAMS))
        before, self.state = self.state, (
            'It is not known whether the commit was made; run the same command again, which sends nothing twice')
        try:
            # validates the card before it uploads anything, and leaves out what is there already
            commit = self.api.create_commit(
                self.target.repo_id, operations, commit_message=self.title, revision=self.target.revision,
                create_pr=self.target.create_pr, parent_commit=head.sha)
            return commit.pr_url or commit.commit_url, commit.oid
        except (Exception, KeyboardInterrupt) as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            found = None if is_refusal(error) else self.wait_for(head, WAITS[:1] if interrupted else WAITS)
            if found and not interrupted:
                return found
            self.state = f'{found[0]} was published, but not verified' if found else before
            raise

    def wait_for(self, head: ModelInfo, waits: Sequence[int]) -> Optional[Tuple[str, str]]:
        for wait in waits:
            time.sleep(wait)
            if found := self.find(head):
                return found
        return None

    def find(self, head: ModelInfo) -> Optional[Tuple[str, str]]:
        """A commit after `head`, or an open pull request of ours, that has the folder's content."""
        repo_id = self.target.repo_id
        page = f'{self.api.endpoint}/{repo_id}'
        if self.target.create_pr:
            places = [
                (f'{page}/discussions/{discussion.num}', f'refs/pr/{discussion.num}')
                for discussion in self.api.get_repo_discussions(repo_id, discussion_status='open')
                if discussion.is_pull_request and discussion.title == self.title]
        else:
            commits = self.api.list_repo_commits(repo_id, revision=self.target.revision)
            places = [
                (f'{page}/commit/{commit.commit_id}', commit.commit_id)
                for commit in takewhile(lambda commit: commit.commit_id != head.sha, commits)]
        return next((place for place in places if not self.differing(place[1])), None)

    def differing(self, revision: str) -> List[str]:
        """The names of the files that a revision lacks or has otherwise."""
        found = self.api.verify_repo_checksums(self.target.repo_id, revision=revision, local_dir=self.folder)
        stale = [HPARAMS] if HPARAMS in found.missing_paths else []
        return sorted([mismatch['path'] for mismatch in found.mismatches] + found.extra_paths + stale)

    @property
    def title(self) -> str:
        return f'Push {self.target.repo_id.rpartition("/")[2]} with timm_wavemix'
