"""Print the table of mappers: ``python -m clip_xai.models.mappers``."""

from clip_xai.models.mappers.mapper_table import mapper_table

if __name__ == "__main__":
    print(mapper_table())
