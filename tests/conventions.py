#!/usr/bin/env python3
"""Writes tests/src/conventions/table.rs from the `model` folder of OpenTelemetry's semantic conventions.

    tests/conventions.py MODEL | rustfmt --edition 2024 > tests/src/conventions/table.rs

Names, types, stability and requirement levels only. Which version it was read from stands in VERSION.
"""
import glob
import sys

import yaml

VERSION = "1.44.0"
GROUPS = [
    ("HTTP_CLIENT", "span.http.client"),
    ("HTTP_SERVER", "span.http.server"),
    ("RPC_CLIENT", "span.rpc.grpc.call.client"),
    ("RPC_SERVER", "span.rpc.grpc.call.server"),
]
STABILITIES = {"stable": "Stable", "release_candidate": "Candidate"}
TYPES = {"string": "Text", "int": "Int", "boolean": "Bool", "string[]": "Texts"}


def kind(written):
    if isinstance(written, dict):
        return "Int" if any(isinstance(member["value"], int) for member in written["members"]) else "Text"
    inner = written.removeprefix("template[").removesuffix("]") if written.startswith("template[") else written
    return TYPES[inner]


def level(attribute):
    written = attribute.get("requirement_level", "recommended")
    word = written if isinstance(written, str) else next(iter(written))
    return "".join(part.title() for part in word.split("_"))


def main(model):
    groups, attributes = {}, {}
    for path in sorted(glob.glob(f"{model}/**/*.yaml", recursive=True)):
        read = yaml.safe_load(open(path))
        # Some files are in the second form of definitions already.
        for attribute in read.get("attributes", []):
            attributes[attribute["key"]] = attribute
        for group in read.get("groups", []):
            groups[group["id"]] = group
            for attribute in group.get("attributes", []):
                if "id" in attribute:
                    attributes[attribute["id"]] = attribute

    def resolve(name):
        group = groups[name]
        levels = resolve(group["extends"]) if "extends" in group else {}
        for attribute in group.get("attributes", []):
            key = attribute.get("ref") or attribute["id"]
            if "requirement_level" in attribute or key not in levels:
                levels[key] = level(attribute)
        return levels

    print("//! Written by `tests/conventions.py` from OpenTelemetry's semantic conventions; not by hand.\n")
    print("use super::{Attribute, Level::*, Stability::*, Type::*};\n")
    print(f'pub const VERSION: &str = "{VERSION}";\n')
    print("#[rustfmt::skip]")
    print("pub const ATTRIBUTES: &[Attribute] = &[")
    for name, attribute in sorted(attributes.items()):
        stability = STABILITIES.get(attribute["stability"], "Development")
        template = str(isinstance(attribute["type"], str) and attribute["type"].startswith("template[")).lower()
        print(f'    Attribute {{ name: "{name}", of: {kind(attribute["type"])}, template: {template}, stability: {stability} }},')
    print("];")
    for constant, name in GROUPS:
        print(f"\npub const {constant}: &[(&str, super::Level)] = &[")
        for key, found in sorted(resolve(name).items()):
            print(f'    ("{key}", {found}),')
        print("];")


main(sys.argv[1])
