"""The folder in which one run keeps everything that it writes."""

from pathlib import Path

from pipeline.errors import PipelineError


class Run:
    """A run folder; nothing is created until something is written."""

    def __init__(self, path: Path | str):
        self.root = Path(path)
        if self.root.exists() and not self.root.is_dir():
            raise PipelineError(f"run folder {self.root} is a file; give a folder with --run")

    def path(self, *parts: str) -> Path:
        """Return the path of an artefact inside the run, for example `run.path("cnn", "models")`."""
        return self.root.joinpath(*parts)

    def relative(self, path: Path | str) -> str:
        """Return a path inside the run as tables hold it: relative to the run folder, with forward slashes.

        Links are not followed where the path as written lies inside: a folder of a run may lie on another disk.
        """
        if Path(path).is_relative_to(self.root):
            rest = Path(path).relative_to(self.root)
            if ".." not in rest.parts:
                return rest.as_posix()
        try:
            return Path(path).resolve().relative_to(self.root.resolve()).as_posix()
        except ValueError:
            raise PipelineError(
                f"{path} lies outside the run folder {self.root}; tables hold only relative paths"
            ) from None

    def __str__(self) -> str:
        return self.root.as_posix()
