"""`upload`: bundles from a folder to a store elsewhere, from where servers fetch them."""

from pathlib import Path

import fsspec

from app.bundle import MANIFEST, Bundle
from app.errors import BundleError, MissingExtra
from distill.bundles import verify


def upload(store: Path, url: str) -> list[str]:
    """Copy the bundles that the store at `url` (`s3://...` and the like) lacks; return their places below it.

    A place is what the bundle's manifest states, wherever its folder is. The manifest, by which servers find a bundle,
    is copied last: an upload that was cut off shows nothing half-written and is completed when it is run again.
    Raises BundleError on a bundle that is not whole, on a revision that is there with another content, and where the
    store cannot be written; MissingExtra where fsspec has no driver for it.
    """
    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise MissingExtra(f"the store {url} needs an fsspec driver that is not installed: {error}") from error
    root, copied = str(root).rstrip("/"), []
    for bundle in verify(store):
        named = Bundle.open(bundle, verify=False).manifest
        place = f"{named.language}/{named.task}/{named.revision}"
        target = f"{root}/{place}"
        manifest = (bundle / MANIFEST).read_bytes()
        try:
            if files.exists(f"{target}/{MANIFEST}"):
                if files.cat_file(f"{target}/{MANIFEST}") != manifest:
                    raise BundleError(
                        f"{url} has another {place} and bundles are immutable: rename {bundle} to a revision that is"
                        f" free, in its manifest too, or upload to another store"
                    )
                continue
            for path in sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != MANIFEST):
                to = f"{target}/{path.relative_to(bundle).as_posix()}"
                files.makedirs(to.rpartition("/")[0], exist_ok=True)
                files.put_file(str(path), to)
            files.pipe_file(f"{target}/{MANIFEST}", manifest)
        except OSError as error:
            raise BundleError(f"{place} cannot be uploaded to {url}: {error}") from error
        copied.append(place)
    return copied
