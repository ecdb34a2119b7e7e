"""Files in class folders, as torchvision lists them: root/<class>/[deeper/]<file>."""

from __future__ import annotations

import os


def find_classes(root: str, what: str, example: str) -> list[str]:
    """Names of the class folders, sorted.

    Args:
        root: their folder. what: it holds, as "pictures", for messages. example: a file's name.

    Raises:
        FileNotFoundError: root is missing or holds no folders.
        NotADirectoryError: root is a file.
    """
    if not os.path.exists(root):
        raise FileNotFoundError(
            f"There is no folder {root!r}. Name the folder that holds one folder per class."
        )
    with os.scandir(root) as entries:  # NotADirectoryError names it when root is a file
        classes = sorted(entry.name for entry in entries if entry.is_dir())
    if not classes:
        raise FileNotFoundError(
            f"{root!r} holds no class folders. {what.capitalize()} belong into one folder per "
            f"class: {root}/<class>/{example}"
        )
    return classes


def find_samples(
    root: str, class_to_idx: dict[str, int], extensions: tuple[str, ...], what: str
) -> list[tuple[str, int]]:
    """(path, class number) in order of class, then path.

    Raises:
        FileNotFoundError: a class holds no file with one of the extensions.
    """
    samples: list[tuple[str, int]] = []
    empty: list[str] = []
    for name, number in class_to_idx.items():
        before = len(samples)
        for folder, _, files in sorted(os.walk(os.path.join(root, name), followlinks=True)):
            samples += [
                (os.path.join(folder, file), number)
                for file in sorted(files)
                if file.lower().endswith(extensions)
            ]
        if len(samples) == before:
            empty.append(name)
    if not empty:
        return samples
    known = ", ".join(extensions)
    if not samples:
        raise FileNotFoundError(
            f"No {what} in any of the {len(class_to_idx)} class folders of {root!r}. "
            f"Files count as {what} by their extension: {known}"
        )
    shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
    raise FileNotFoundError(
        f"No {what} in {len(empty)} class folder(s) of {root!r}: {shown}. Remove them or add "
        f"{what}; extensions known: {known}"
    )
