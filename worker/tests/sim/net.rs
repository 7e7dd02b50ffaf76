//! What a process may do to the world: call the broker, wait. Everything it sends has a delay.

use crate::broker::Broker;
use crate::dice::Dice;
use crate::process::Message;
use guestkit_worker::engine::record::Millis;

/// A request: carried out at the broker when it arrives, whatever became of its sender.
pub(crate) type Call = Box<dyn FnOnce(&mut Broker, Millis) -> Option<Message>>;

/// What a process sends.
pub(crate) enum Sent {
    /// A request on its way.
    Call(Call),
    /// A message to itself.
    Message(Message),
}

/// How a fault strikes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    /// It never arrives, and the client is told that nobody knows.
    Lost,
    /// It arrives, its answer does not.
    Unanswered,
    /// It arrives when the client has long given up.
    Late,
    /// The connection breaks; the client's library sends it again, and the first copy is late.
    Resent,
    /// The broker refuses it for a passing reason: abort.
    Refused,
}

/// A process' view of the world during one step.
pub(crate) struct Net<'a> {
    pub(crate) now: Millis,
    pub(crate) dice: &'a mut Dice,
    pub(crate) sent: Vec<(Millis, Sent)>,
    /// Cases of a thousand in which a writer's request meets a fault.
    pub(crate) strikes: u64,
    /// Longest usual delay of a request.
    pub(crate) slow: i64,
}

impl Net<'_> {
    pub(crate) fn delay(&mut self) -> Millis {
        if self.dice.permille(30) {
            self.dice.between(0, self.slow * 8)
        } else {
            self.dice.between(0, self.slow)
        }
    }

    pub(crate) fn call(&mut self, call: impl FnOnce(&mut Broker, Millis) -> Message + 'static) {
        let delay = self.delay();
        self.call_in(delay, move |broker, now| Some(call(broker, now)));
    }

    pub(crate) fn call_in(
        &mut self,
        delay: Millis,
        call: impl FnOnce(&mut Broker, Millis) -> Option<Message> + 'static,
    ) {
        self.sent.push((delay, Sent::Call(Box::new(call))));
    }

    pub(crate) fn after(&mut self, delay: Millis, message: Message) {
        self.sent.push((delay, Sent::Message(message)));
    }

    pub(crate) fn strike(&mut self) -> Option<Strike> {
        let strikes = self.strikes;
        self.dice.permille(strikes).then(|| {
            *self.dice.pick(&[
                Strike::Lost,
                Strike::Unanswered,
                Strike::Late,
                Strike::Resent,
                Strike::Refused,
            ])
        })
    }
}
