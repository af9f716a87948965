"""The files that a user writes, as typed models: streams, loops, and everything that can be wrong with them."""

from millstream.project.catalogue import FeatureCatalogue
from millstream.project.load import Project, load_project
from millstream.project.loop import Loop
from millstream.project.problem import BadProject, Problem
from millstream.project.stream import Stream

__all__ = ["BadProject", "FeatureCatalogue", "Loop", "Problem", "Project", "Stream", "load_project"]
