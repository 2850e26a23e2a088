"""AgentScope: `adapter` is the entry, `swap` and `memory` keep the runs of built agents apart."""
