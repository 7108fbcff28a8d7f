"""What values.yaml says about itself: the comments that start with `# --`, by the path of the value they stand above."""

import re

import yaml

KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):( |$)")


def read(text):
    """Returns [(path, default, description)] in the order of the file. Every value must have a description, its own or
    that of a value it is part of."""
    values = yaml.safe_load(text)
    found = []
    path = []  # (indentation, key) of the enclosing values
    comment = None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped[5:]]
            continue
        if stripped.startswith("#") and comment is not None:
            comment.append(stripped[1:].strip())
            continue
        match = KEY.match(line)
        if match:
            indentation = len(match[1])
            while path and path[-1][0] >= indentation:
                path.pop()
            inside_described = any(described for _, _, described in path)
            path.append((indentation, match[2], comment is not None))
            keys = [key for _, key, _ in path]
            value = values
            for key in keys:
                value = value[key]
            if comment is not None:
                found.append((".".join(keys), value, " ".join(comment)))
            elif not inside_described and (not isinstance(value, dict) or not value):
                raise SystemExit(f"values.yaml:{number}: {'.'.join(keys)} has no description (# -- …)")
        elif comment is not None:
            raise SystemExit(f"values.yaml:{number}: a description must stand right above its value")
        comment = None
    return found
