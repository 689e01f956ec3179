//! The steps of a fork, each driven up to where something can fail, and on from there.

use std::time::Duration;

use crate::process::{Ended, Process, within};
use crate::scene::{Place, Scene};
use crate::world::{Seed, program};

/// A step comes within this time, however busy the machine is.
const REACHED: Duration = Duration::from_secs(20);
/// What children wait for.
const GO: &str = "/tmp/test-go";
/// What a child ends with that has all that its parent had.
pub(crate) const RIGHT: i32 = 7;

/// The columns of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Publish,
    Descriptor,
    Push,
    Template,
    /// Of the template's step, and in no picture: who watches the seed's lease.
    Lease,
    Child,
    Miss,
    Exit,
}

/// A step that has been begun: who does it stands in the middle of it.
#[derive(Debug)]
pub(crate) struct Begun {
    step: Step,
    /// `mitosis resume`, or for the first step the parent.
    who: Process,
    pub(crate) seed: Option<Seed>,
}

impl Step {
    pub(crate) const ALL: [Step; 7] = [
        Step::Publish,
        Step::Descriptor,
        Step::Push,
        Step::Template,
        Step::Child,
        Step::Miss,
        Step::Exit,
    ];

    /// Those, and what else there is.
    pub(crate) fn named(name: &str) -> Option<Step> {
        let all = Step::ALL.into_iter().chain([Step::Lease]);
        all.into_iter().find(|step| step.name() == name)
    }

    /// As the document has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Step::Publish => "publish",
            Step::Descriptor => "descriptor",
            Step::Push => "push",
            Step::Template => "template",
            Step::Lease => "lease",
            Step::Child => "first child",
            Step::Miss => "miss",
            Step::Exit => "exit",
        }
    }

    /// As the agents have it (`core/src/halt.rs`).
    fn halt(self) -> &'static str {
        if self == Step::Child { "child" } else { self.name() }
    }

    /// Whose agent does it.
    pub(crate) fn place(self) -> Place {
        match self {
            Step::Publish | Step::Descriptor | Step::Push | Step::Miss => Place::A,
            Step::Template | Step::Lease | Step::Child | Step::Exit => Place::B,
        }
    }

    /// Begins it, and returns when its agent stands in the middle of it.
    pub(crate) fn begin(self, scene: &Scene) -> Begun {
        let world = &scene.world;
        let machine = scene.machine(self.place());
        let waits = matches!(self, Step::Miss | Step::Exit);
        let seed = (self != Step::Publish).then(|| world.seed());
        if !waits {
            machine.halt(self.halt());
        }
        if self == Step::Template {
            // What it has not been pushed, it asks for.
            world.a.halt(Step::Push.halt());
        }
        let all = format!("await {GO};read 0 all;exit {RIGHT}");
        let mut who = match (&seed, self) {
            (None, _) => world.run(&world.a, &[&program("suite-told").display().to_string()]),
            // Whose child's end goes from host to host.
            (Some(seed), Step::Exit) => {
                let commands = format!("read 0 all;await {GO};exit {RIGHT}");
                let on = ["resume", &seed.handle, "--on", &scene.host_b, "--payload", &commands];
                world.mitosis(&world.a, &on)
            }
            (Some(seed), _) => {
                world.mitosis(&world.b, &["resume", &seed.handle, "--payload", &all])
            }
        };
        if waits {
            while who.line() != "waiting" {}
            machine.halt(self.halt());
            world.signal(&world.b, GO);
        }
        within(REACHED, self.name(), || machine.is_halted(self.halt()));
        if self == Step::Push {
            // Nobody waits for a push: the child runs already.
            while who.line() != "waiting" {}
        }
        Begun { step: self, who, seed }
    }
}

impl Begun {
    /// The step goes on, if anybody is left to do it.
    pub(crate) fn go_on(&mut self, scene: &Scene) {
        for place in [Place::A, Place::B] {
            scene.machine(place).go_on();
        }
        scene.world.signal(&scene.world.b, GO);
        if self.step == Step::Publish {
            // A parent that has a handle ends with its standard input.
            self.who.tell("");
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.who.has_ended()
    }

    /// How it came out, by a deadline.
    pub(crate) fn end(self, scene: &Scene, limit: Duration) -> Ended {
        let ended = self.who.end_within(limit);
        scene.world.remove(&scene.world.b, &[GO]);
        ended
    }
}
