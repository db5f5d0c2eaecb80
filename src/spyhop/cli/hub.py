"""Commands for others: push a finished run, repeat a published one."""

from pathlib import Path
from tempfile import TemporaryDirectory

from spyhop.cli.folder import output_folder
from spyhop.cli.options import NO_NAMES
from spyhop.cli.running import load, print_plan, run_and_report, say
from spyhop.recipe import resolve
from spyhop.recipe.hub import upload, write_repositories
from spyhop.recipe.published import GOOD, check_scores, check_steps, read_published
from spyhop.recipes import RECIPES
from spyhop.schema import ArtifactError


def push(
    run: Path, to: str, yes: bool = False, public: bool = False, out: Path | None = None
) -> None:
    """Push a finished run's model and data set to the Hugging Face hub.

    Without --yes it shows what would be sent, and sends nothing.
    """
    papers = {name: kind.papers for name, kind in RECIPES.items()}
    with TemporaryDirectory() as place:
        for folder, kind in write_repositories(run, out or Path(place), to, papers).items():
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            sizes = {path.relative_to(folder): path.stat().st_size for path in files}
            total = f"{len(sizes)} files, {sum(sizes.values()) / 1e6:,.1f} MB"
            say(f"{kind} {to}, {'public' if public else 'private'}: {total}")
            say(*(f"{num_bytes:>16,}  {name}" for name, num_bytes in sizes.items()))
            if yes:
                say(f"pushed: {upload(folder, kind, to, is_public=public)}")
    if not yes:
        say("nothing was sent; --yes pushes these files")


def reproduce(
    card: Path, store: Path | None = None, set_: list[str] = NO_NAMES, yes: bool = False
) -> None:
    """Repeat a published run; compare digests and scores.

    Without --yes nothing is run: the plan is shown, and what the output folder has is compared.
    """
    published, recipe = read_published(card)
    built, runtime = load(recipe, set_, {})
    folder = output_folder(store, Path(), runtime)
    if yes:
        run_and_report(built, runtime, folder)
    resolved = resolve(built, folder, without_missing=True)
    if not yes:
        print_plan(resolved, runtime)
    missing = resolved.missing or []
    say(*(f"missing input: {path}" for path in missing))
    found = [*check_steps(published, resolved), *check_scores(published, resolved)]
    say(*(f"{name}: {state}{about and f' ({about})'}" for name, state, about in found))
    if bad := [state for _, state, _ in found if state not in GOOD] + ["missing"] * len(missing):
        kinds = ", ".join(f"{bad.count(kind)} {kind}" for kind in dict.fromkeys(bad))
        raise ArtifactError(f"{card}: not reproduced: {kinds}")
