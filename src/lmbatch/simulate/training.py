from dataclasses import dataclass
@dataclass
class TrainCase: pass
@dataclass
class TrainOutcome: pass
def simulate_training(): pass
