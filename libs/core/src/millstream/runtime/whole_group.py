"""Gives all partitions of a consumer group to one member: who joins what several topics say has to hear them all.

Kafka's assignors split a group's partitions. Where that is wrong, several groups share the work instead, each heard whole by
one member, and `turn` spreads them: the members of all groups are the same processes, so group 0 goes to the first by name,
group 1 to the second. Of two processes one stands by for a group of the other, and has it when the other is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

NAME = "millstream-whole"
VERSION = 0


@dataclass(frozen=True, kw_only=True)
class Share:
    """A part of a service's work that one of its processes does, as a consumer group of its own."""

    turn: int
    """Its number among the shares, from 0."""
    letters: str
    """The group in whose dead-letter topics it buries: to people the shares are one."""


def assignor(share: Share | None, instance: str) -> type[AbstractPartitionAssignor]:
    """What the process `instance` brings to its group."""
    return RoundRobinPartitionAssignor if share is None else whole_to_one(share.turn, instance)


def buried_by(share: Share | None, group: str) -> str:
    """Whose dead letters those of a consumer `group` are."""
    return group if share is None else share.letters


def whole_to_one(turn: int, instance: str) -> type[AbstractPartitionAssignor]:
    """The assignor of the group with this `turn`, for the process `instance`. A class, since aiokafka asks no object."""

    class WholeToOne(AbstractPartitionAssignor):  # type: ignore[misc]
        name = NAME

        @classmethod
        def assign(
            cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            # By the process' name, which is the same in every group; Kafka makes a member's id anew in each.
            order = sorted(members, key=lambda member: (members[member].user_data, member))
            whole = order[turn % len(order)]
            topics = [
                (topic, sorted(cluster.partitions_for_topic(topic) or ()))
                for topic in sorted(members[whole].subscription)
            ]
            return {
                member: ConsumerProtocolMemberAssignment(VERSION, topics if member == whole else [], b"")
                for member in members
            }

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            return ConsumerProtocolMemberMetadata(VERSION, list(topics), instance.encode())

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            """The listener is told."""

    return WholeToOne
