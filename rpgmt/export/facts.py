"""What an exported file says of itself: all that is needed to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rpgmt.errors import UserError
from rpgmt.prediction.meaning import Reading

KEY = "rpgmt.network"
"""Of an ONNX file's metadata: `Facts` as JSON."""

EXTRA_FILE = "rpgmt.json"
"""In a pt2 file: the same."""

FORMAT: Literal["rpgmt-export-1"] = "rpgmt-export-1"

Precision = Literal["float32", "float16", "int8"]

Output = tuple[Annotated[int, Field(ge=1)], str, str | None]
"""Stage, head, and the part of what `Meaning.decode` gives, None for the map as the network computes it."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Facts:
    """What an exported network is given, and what comes out.

    Args:
        format: of these facts.
        input_size: (W, H) of the crops in pixels.
        stages: how many are in the file.
        decoded: whether outputs are decoded, or maps as the network computes them.
        precision: of the weights.
        outputs: of each output, by its name, what it is.
        reading: what outputs mean; None where the model's file does not say.
        config: the training config.
    """

    format: Literal["rpgmt-export-1"] = FORMAT
    input_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    stages: Annotated[int, Field(ge=1, le=1000)]
    decoded: bool
    precision: Precision
    outputs: dict[str, Output]
    reading: Reading | None
    config: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(_FACTS.dump_python(self, mode="json"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> Facts:
        """Reads what `to_json` wrote.

        Raises:
            UserError: it is something else, or its outputs are not those that its stages and heads have; `source` is
                where it comes from.
        """
        try:
            facts = _FACTS.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or KEY
            raise UserError(
                f"{source}: what it says of itself cannot be read ({place}: {first['msg']}): export it again"
            ) from None
        reading = facts.reading
        if reading is not None:
            wanted = set(outputs_of(facts.stages, list(reading.heads), reading if facts.decoded else None).values())
            if set(facts.outputs.values()) != wanted or reading.input_size != facts.input_size:
                raise UserError(f"{source}: what it says of its outputs does not fit its stages and heads: export it again")
        return facts


_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)


def outputs_of(stages: int, heads: list[str], decode: Reading | None, *, classifier: bool = False) -> Mapping[str, Output]:
    """The outputs of an exported network by name, in their order: `stage_1/depth`, or `stage_1/depth/map`.

    Args:
        stages: how many there are.
        heads: of each stage.
        decode: what outputs mean, if they are decoded.
        classifier: there is one head of one stage: `logits`, or decoded `probabilities`.
    """
    outputs: dict[str, Output] = {}
    for stage in range(1, stages + 1):
        for head in heads:
            for part in decode.heads[head].parts if decode else (None,):
                name = (part or "logits") if classifier else "/".join([f"stage_{stage}", head, *([part] if part else [])])
                outputs[name] = (stage, head, part)
    return outputs
