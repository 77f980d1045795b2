"""What models cost in time and memory, side by side (`winnow bench`).

    contenders.py    what is compared: models, forms, precisions, sizes, from what a user asks
    request.py       from the words of a command line to a run
    run.py           the run: rounds through all contenders in changing order
    processes.py     each contender in a process of its own, and what becomes of those that die
    worker.py        that process: loads, warms up, times, answers
    forms.py         how a contender runs: ours, our plain path, peers; a new peer is added here
    stages.py        time by stage
    instructions.py  how many instructions that takes, where the system lets a process count them
    floor.py         the least that this machine could take
    machine.py       what this machine is
    report.py        rows, tables, ratios, differences

One process runs at a time and the others wait: in a common process the slower form slows down further, because the
allocator and the caches carry what the other one left behind.
"""
