# docker build -t clip-xai . && docker run --rm -v "$PWD/runs:/app/runs" clip-xai
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml setup.py constraints.txt Makefile README.md LICENSE ./
COPY src src
COPY conf conf
RUN make setup
COPY . .
CMD ["make", "demo"]
