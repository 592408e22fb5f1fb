"""What the Rust extension offers; compared with the built module by mypy.stubtest."""

from typing import Any, final

@final
class Codec:
    def __new__(
        cls,
        *,
        none_atom: str = "undefined",
        max_depth: int = 512,
        max_atoms: int = 131_072,
        max_bytes: int = 67_108_864,
        exact_empty_str: bool = False,
    ) -> Codec: ...
    def encode(self, term: Any) -> bytes: ...
    def decode(self, data: bytes | bytearray | memoryview) -> Any: ...
    def encode_into(self, buffer: bytearray, term: Any, *, version: bool = True) -> None: ...
    def decode_prefix(self, data: bytes | bytearray | memoryview, offset: int = 0, *, version: bool = True) -> tuple[Any, int]: ...
    @property
    def atoms(self) -> int: ...
