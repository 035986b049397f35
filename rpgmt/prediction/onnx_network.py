"""Exported ONNX files, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rpgmt.errors import UserError
from rpgmt.export.facts import KEY, Facts
from rpgmt.prediction.network import Decoded, Network

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxNetwork(Network):
    """A network that `tools/export.py` wrote.

    Args:
        path: of the file.
        device: `auto` (CUDA where onnxruntime has it), `cpu` or `cuda`.

    Raises:
        UserError: onnxruntime is missing or has no such device, or the file is missing or of another kind.
    """

    def __init__(self, path: Path, device: str) -> None:
        if not path.is_file():
            raise UserError(f"{path} does not exist: give a run folder, its model file or an exported ONNX file")
        self._path, self._session = path, make_session(path, device)
        self.facts = read_facts(path, self._session)
        if self.facts.reading is None:
            raise UserError(f"{path} does not say what its outputs mean: train the model again and export it to predict")
        self.reading, self.stages = self.facts.reading, self.facts.stages
        self._names = {output: name for name, output in self.facts.outputs.items()}

    def __call__(self, crops: NDArray[np.uint8], stop_after: int | None, flip_test: bool) -> Decoded:
        stages = stop_after or self.stages
        if self.facts.decoded:
            if flip_test:
                raise UserError(f"`flip_test` is true: {self._path} gives decoded outputs: export it without --decode")
            parts = {name: meaning.parts for name, meaning in self.reading.heads.items()}
            found = self._run(crops, stages)
            return [
                {head: tuple(found[stage, head, part] for part in parts[head]) for head in parts}
                for stage in range(1, stages + 1)
            ]
        maps = self._run(crops, stages)
        mirrored = self._run(np.ascontiguousarray(crops[:, :, ::-1]), stages) if flip_test else {}
        result: list[dict[str, tuple[NDArray[Any], ...]]] = []
        for stage in range(1, stages + 1):
            of_stage = {}
            for head, meaning in self.reading.heads.items():
                output = torch.from_numpy(maps[stage, head, None])
                if flip_test:
                    output = meaning.average_with_mirror(output, torch.from_numpy(mirrored[stage, head, None]))
                of_stage[head] = tuple(part.numpy() for part in meaning.decode(output, self.reading.input_size))
            result.append(of_stage)
        return result

    def _run(self, crops: NDArray[np.uint8], stages: int) -> dict[tuple[int, str, str | None], NDArray[Any]]:
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True  # later stages are left out
        wanted = {output: name for output, name in self._names.items() if output[0] <= stages}
        outputs = self._session.run(list(wanted.values()), {self._session.get_inputs()[0].name: crops}, options)
        return dict(zip(wanted, outputs, strict=True))


def make_session(path: Path, device: str) -> Any:
    """An onnxruntime session of a file.

    Raises:
        UserError: onnxruntime is missing, cannot read the file, or has no such device.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path} needs onnxruntime, which is missing: pip install 'rpgmt[export]'") from error
    known = {name for name, provider in _PROVIDERS.items() if provider in onnxruntime.get_available_providers()}
    kind = device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if "cuda" in known else "cpu"
    if kind not in known:
        raise UserError(f"`device` is {device}: this onnxruntime runs {path} on {', '.join(sorted(known))}")
    number = {"device_id": device.partition(":")[2] or "0"} if kind == "cuda" else {}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: they are raised too
    options.intra_op_num_threads = torch.get_num_threads()
    providers = [(_PROVIDERS[kind], number)] + ([(_PROVIDERS["cpu"], {})] if kind != "cpu" else [])
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise UserError(f"{path}: onnxruntime cannot read it: {str(error).strip().partition(chr(10))[0]}") from error
    if device.startswith("cuda") and _PROVIDERS["cuda"] not in session.get_providers():
        raise UserError(f"`device` is {device}: onnxruntime cannot start CUDA here: give cpu")
    return session


def read_facts(path: Path, session: Any) -> Facts:
    """What an exported file says of itself.

    Raises:
        UserError: it was not exported by this project, or its inputs and outputs are not what it says.
    """
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if text is None:
        raise UserError(f"{path} does not say that it is a network of this project: give one that `rpgmt export` wrote")
    facts = Facts.from_json(text, str(path))
    width, height = facts.input_size
    inputs = [(entry.type, entry.shape[1:]) for entry in session.get_inputs()]
    if inputs != [("tensor(uint8)", [height, width, 3])] or {o.name for o in session.get_outputs()} != facts.outputs.keys():
        raise UserError(f"{path}: its inputs and outputs are not what it says of itself: export it again")
    return facts
