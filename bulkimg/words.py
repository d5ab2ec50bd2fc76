"""Small words that every room needs: numbers that agree with their nouns."""


def count(number: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"
