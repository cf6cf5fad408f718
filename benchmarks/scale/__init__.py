"""What a team would gain by more machines or more people: the loop as a discrete-event simulation, fed with measured
times.

costs.py    what each part takes, measured        plan.py   what is asked: sizes, replicas, labelers, ranks
cores.py    a machine that several parts share    loop.py   the loop, synchronous or ahead, in simulated time
measure.py  measures costs on the real services   questions.py  holds it against real runs, then asks; figure and table
"""
