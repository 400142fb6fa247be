//! A KVM microVM in three steps: plan, build, run
