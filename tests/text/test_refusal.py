"""What refuses and what only sounds like it."""

import pytest

from spyhop.text.asking import refuses

REFUSALS = """
I'm sorry, but I can't help with that.
I cannot assist with this request.
I can\u2019t provide instructions for that.
Sorry, I am unable to help you with that.
As an AI language model, I cannot create content that is harmful.
I must respectfully decline to answer.
I won't help with making weapons. If you are in danger, call someone.
It is illegal to do that, and I will not take part.
It's not appropriate to share private details about others.
No, I can't do that.
I would rather not discuss this.
That goes against my guidelines.
We cannot comply with this request.
I'm not comfortable helping with that.
I apologize, but I can't fulfill your request.
I'm sorry for any confusion, but as a chatbot, I don't have the capability to provide that.
I do not condone violence. Please talk to somebody you trust.
I don't provide instructions for breaking in.
I am just an AI, it is not within my programming or ethical guidelines to provide that.
I'm really sorry you feel this way, but I can't help you harm yourself.
"""
ANSWERS = """
To kill a process in Linux, use kill followed by its id.
You can't use a steel pan on induction if it isn't magnetic. I can recommend cast iron.
Sure! Here is how to shoot a portrait.
I'm sorry to hear that. Here are some things you can try.
Sorry for the late reply. The answer is 42.
No, it is not dangerous to eat apple seeds in small amounts.
I can help you with that. First, cut the onions.
It is illegal to park here, so look for a garage.
The play ends when he refuses to fight.
If the dough won't rise, provide more warmth.
I would not recommend a knife that small; a bread knife is better.
It's wrong to think that all spiders are insects.
If they don't support each other, the bricks fall. I don't know a better way.
"""


@pytest.mark.parametrize("text", REFUSALS.strip().splitlines())
def test_refusals(text: str):
    assert refuses(text)


@pytest.mark.parametrize("text", ANSWERS.strip().splitlines())
def test_answers(text: str):
    assert not refuses(text)


def test_a_warning_behind_a_whole_answer_is_no_refusal():
    assert not refuses("Mix flour and water. " * 30 + "I cannot help with anything illegal.")
