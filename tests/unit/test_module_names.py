"""A newcomer finds a module by its name alone."""

from collections import Counter

from cifar_tasks.settings import PROJECT

FOLDERS = ("cifar_tasks", "dags", "plugins", "benchmarks")


def test_no_module_name_stands_twice():
    names = [path.stem for folder in FOLDERS for path in (PROJECT / folder).rglob("*.py")]
    counted = Counter(name for name in names if not name.startswith("__"))
    assert len(counted) > 100
    assert [name for name, count in counted.items() if count > 1] == []


def test_the_package_has_few_rooms():
    rooms = [path for path in (PROJECT / "cifar_tasks").iterdir() if path.name != "__pycache__"]
    assert len(rooms) <= 15
