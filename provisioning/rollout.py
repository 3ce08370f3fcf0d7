"""Updates and their images together: an image is there as long as an update uses it, and no longer.

The row says that an image is used, the store has it; no transaction spans both. Whoever adds or takes away a use holds
the image meanwhile (`store.updates.hold_image`), looks, and then acts.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from provisioning.core import registry, updates
from provisioning.images import ImageError, Images, Progress
from provisioning.model.update import Update
from provisioning.store import updates as table
from provisioning.store.database import Database

TRIES: Final = 3
LONGEST_UPLOAD: Final = timedelta(days=1)
"""Whoever stores an image for longer than this is taken for dead."""


async def publish(database: Database, images: Images, new: Update, source: Path, progress: Progress) -> Update:
    """Store the image at `source`, and offer it as `new`, whose checksum and size are filled in.

    Raises:
        Refusal: MALFORMED or UNKNOWN, before anything is stored, as `core.updates.publish`; UNAVAILABLE.
        ImageError: the file cannot be read, or the store takes nothing.
    """
    updates.check(new)
    async with database.read() as tx:
        await registry.product(tx, new.protocol, new.product)
    image = await images.put(source, progress)
    try:
        for _ in range(TRIES):
            async with database.begin() as tx:
                await table.hold_image(tx, image.checksum)
                if await images.size(image.checksum) == image.size:
                    return await updates.publish(tx, replace(new, checksum=image.checksum, size=image.size))
            # The last update that used it was deleted a moment ago, and the image with it.
            image = await images.put(source, lambda _count: None)
    except BaseException:
        await drop(database, images, image.checksum)
        raise
    raise ImageError(f"the image {image.checksum} is taken away each time that it is stored")


async def delete(database: Database, images: Images, update_id: str) -> Update:
    """Delete the update, and its image unless another update uses it.

    Raises:
        Refusal: UNKNOWN, UNAVAILABLE.
        ImageError: the update is gone, and the image cannot be taken away: `sweep` will.
    """
    async with database.begin() as tx:
        found = await updates.delete(tx, update_id)
    await drop(database, images, found.checksum)
    return found


async def drop(database: Database, images: Images, checksum: str) -> bool:
    """Take an image away if no update uses it. Returns whether it was there. Raises: as `delete`."""
    async with database.begin() as tx:
        return not await table.hold_image(tx, checksum) and await images.remove(checksum)


async def sweep(database: Database, images: Images) -> int:
    """Take away the images that no update uses: products were deleted, or a publisher was. Returns how many.

    Raises: as `delete`.
    """
    await images.tidy(datetime.now(UTC) - LONGEST_UPLOAD)
    there = await images.all()
    async with database.read() as tx:
        used = await table.used(tx, there)
    return sum([await drop(database, images, checksum) for checksum in there if checksum not in used])
