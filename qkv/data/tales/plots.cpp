// The plot schemas of the stories, as data. stories.h explains the fields and slots.
#include "qkv/data/tales/stories.h"
#include "qkv/data/tales/words.h"

namespace qkv::tales {

const std::vector<Plot>& plots() {
  // One string per step.
  // clang-format off
  static const std::vector<Plot> all = {
      {"lost", 0, 0, false, false, "", "lost {a thing}",
       {"{H} had {a thing}. [{H.he} loved to {use}.|It was {h.his} favourite thing.|{H.his} {adult} had "
        "given it to {h.him}.]",
        "One [day|morning|afternoon], {h} took the {noun} to the {place}.",
        "?[{H.he} stayed there for a long time.|It was a warm and sunny day.|There was so much to see.]",
        "[Then {h.he} looked down, and the {noun} was gone!|When it was time to go home, the {noun} was "
         "gone!|Suddenly, {h.he} could not find the {noun}.]",
        "[{H} felt very sad.|{H} began to cry.|{H} did not know what to do.]",
        "{H.his} friend {f} came by and asked, \"What is wrong?\" \"I lost my {thing},\" said {h}.",
        "\"[Do not worry|Do not cry]. [I will help you|Let us look for it together],\" said {f}.",
        "?They looked [everywhere|high and low|left and right].", "At last, {f} found the {noun} {spot}.",
        "[{H} hugged {f} and smiled.|{H} was so happy that {h.he} danced.|{H} thanked {f}, took the {noun} "
         "and {used} again.]"},
       {"friends help each other", "two can find more than one", "it is good to ask for help"},
       {{"story_what", "What did {h} lose?", "{a thing}|{thing}|the {thing}|{noun}"},
        {"story_who", "Who found the {noun}?", "{f}"},
        {"story_where", "Where was the {noun}?", "{spot}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"sharing", kToy, 0, false, false, "", "shared {a thing}",
       {"{H} [got|had] a new {noun}. It was {col}, and {h.he} [loved it very much|was proud of it].",
        "One day, {h} was {in} with the {noun}.", "{F} came by and saw it. \"May I {use} too?\" asked {f}.",
        "[\"No, it is mine!\" said {h}.|{H} shook {h.his} head. \"It is only for me,\" {h.he} said.]",
        "[{F} walked away with a sad face.|{F} sat down alone and looked at the ground.]",
        "?Soon {h} felt [bored|lonely]. It was not much fun to be alone.",
        "[{H} thought about it for a while.|Then {h} had a good idea.] {H.he} went to {f} and said, \"I am "
         "sorry. Let us {use} together.\"",
        "[{F} smiled, and they laughed all afternoon.|They took turns until the sun went down.|{F} was "
         "happy, and so was {h}.]"},
       {"sharing makes things more fun", "a toy is better with a friend", "it is kind to share"},
       {{"story_what", "What did {h} have?", "{a thing}|{thing}|a new {noun}|{a noun}|{noun}"},
        {"story_who", "Who wanted to {use} too?", "{f}"},
        {"story_where", "Where was {h} with the {noun}?", "{in}|the {place}|{place}|at the {place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"broken", kFragile, 0, true, false, "[playful|lively|young]", "broke {a thing}",
       {"{H.his} {adult} had {a thing}. [It was very old.|It stood near the window.|{Adult.he} liked it a "
        "lot.]",
        "One day, {h} was running around in the house with {f}.",
        "[Bump!|Crash!] {H} hit the {noun}, and it fell and broke.",
        "\"[Oh no!|What now?]\" said {f}. \"[We can hide it|We can say that the cat did it].\"",
        "[{H} felt bad in {h.his} tummy.|{H} thought hard.|{H.his} heart beat fast.] \"No,\" said {h}. \"I "
         "will tell the truth.\"",
        "{H} went to {h.his} {adult} and said, \"I broke your {thing}. I am very sorry.\"",
        "[{H.his} {adult} was sad about the {noun}, but {adult.he} was glad that {h} was honest.|\"Thank "
         "you for telling me,\" said {h.his} {adult} and gave {h.him} a hug.]",
        "?Together they glued the {noun}. It did not look new, but it was whole again."},
       {"it is best to tell the truth", "being honest takes courage",
        "a mistake is not the end of the world"},
       {{"story_what", "What did {h} break?", "{a thing}|{thing}|the {thing}|the {noun}|{noun}|{a noun}"},
        {"story_who", "Who wanted to hide it or blame the cat?", "{f}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"gift", kToy, 0, false, false, "", "made a gift for a friend",
       {"It was the birthday of {f}. {H} wanted to give {f.him} something nice, but {h.he} had no money.",
        "{H} went to the {place} to think.", "?[{H.he} walked up and down.|{H.he} thought and thought.]",
        "[There {h.he} met {h.his} {adult}.|{H.his} {adult} saw {h.him} there.] \"[A gift does not need "
         "money|The best gifts are made by hand],\" said {h.his} {adult}.",
        "So {h} [made|built] {a thing} out of old things. It took [all day|many hours].",
        "{F} opened the box and saw the {noun}. \"[I love it|It is perfect]!\" said {f}.",
        "[{F} {used} the whole evening.|{H} was proud and happy.|They ate cake and sang songs.]"},
       {"a gift from the heart is the best gift", "love matters more than money"},
       {{"story_who", "Whose birthday was it?", "{f}|it was {f}'s birthday|{f}'s|{f}'s birthday"},
        {"story_what", "What did {h} make?", "{a thing}|{thing}|{a noun}|{noun}"},
        {"story_where", "Where did {h} go to think?", "the {place}|to the {place}|{in}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"dark", 0, 0, true, false, "[shy|quiet|gentle]", "was afraid of the dark",
       {"{H} was afraid of the dark. [Every night {h.he} hid under the covers.|At night {h.he} could not "
        "sleep.]",
        "One night, there was a noise. Something moved {spot}.",
        "\"[Is it a monster|Who is there]?\" whispered {h}.",
        "{H} took {h.his} {thing} and held it tight. [Step by step, {h.he} went to look.|Then {h.he} turned "
         "on the light.]",
        "It was only [{a pet}|a little {pet}]! [It was cold and hungry.|It looked at {h} with big eyes.]",
        "{H} [laughed|smiled]. \"You are more afraid than I am,\" {h.he} said.",
        "?{H.he} gave the {pet} some milk and a warm bed.",
        "[After that night, {h} was not afraid of the dark.|From then on, the {pet} slept beside {h}.]"},
       {"the dark is not so bad", "being brave means to look", "small fears go away when you face them"},
       {{"story_what", "What made the noise?", "{a pet}|the {pet}|{pet}|a little {pet}"},
        {"story_where", "Where did something move?", "{spot}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"learning", 0, kOutdoor, false, false, "", "learned to {skill}",
       {"{H} wanted to learn to {skill}. [All the others could do it.|{F} could do it very well.]",
        "Every day {h} went to the {place} to try.",
        "[The first time, it went wrong.|At first, nothing worked.|On the first day, it did not work.] {F} "
         "[saw it|stood nearby] and said, \"Try again!\"",
        "?{H} wanted to give up. {H.he} threw {h.his} {thing} on the ground.",
        "\"[I also failed many times|Nobody can do it on the first day],\" said {f}. \"[Go slowly|Take a "
         "deep breath].\"",
        "{H} tried again and again.",
        "[One day, it worked!|After a week, {h.he} could do it!] \"Look at me!\" {h.he} shouted.",
        "[{F} clapped and cheered.|{F} was proud of {h.him}.|They went home singing.]"},
       {"practice makes you better", "you should not give up too soon", "every master was once a beginner"},
       {{"story_what", "What did {h} want to learn?", "to {skill}|{skill}|how to {skill}"},
        {"story_who", "Who helped {h}?", "{f}"},
        {"story_where", "Where did {h} go every day?", "the {place}|to the {place}|{in}|{place}"}}},

      {"race", kToy, kOutdoor, false, false, "", "ran a race for {a thing}",
       {"There was a race {in}. The prize was {a thing}.",
        "{H} was [slow|small], and {f} was [fast|big and strong].",
        "\"[I will win for sure|You can never beat me],\" said {f}.",
        "[One, two, three, go!|The bell rang, and off they went.]",
        "{F} ran ahead. [Then {f.he} stopped to rest and fell asleep.|But {f.he} looked back, laughed and "
         "fell over a stone.]",
        "?{H} did not stop. Step by step, {h.he} came closer to the end.",
        "{H} [passed {f} and won|came first]! [Everyone cheered.|All the others clapped.]",
        "[{H} shared the {noun} with {f}.|{H} took the {noun} home and {used}.]"},
       {"slow and steady wins the race", "you should not boast too soon", "it pays to keep going"},
       {{"story_who", "Who won the race?", "{h}"},
        {"story_what", "What was the prize?", "{a thing}|{thing}|the {thing}|the {noun}|{a noun}|{noun}"},
        {"story_where", "Where was the race?", "{in}|the {place}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"storm", kToy, kOutdoor, false, true, "", "was caught in a storm",
       {"{H} was playing with {h.his} {thing} {in}.",
        "[Dark clouds came, and it began to rain.|The sky turned grey, and the wind grew strong.]",
        "[Boom! There was thunder.|A flash of light crossed the sky.] {H} [was scared|began to shake].",
        "\"[Come in here|Over here]!\" called a voice. It was {f}, who [had a small house nearby|sat in a "
         "dry cave].",
        "{H} ran to {f}. [It was warm and dry there.|{F} gave {h.him} a cup of hot tea.]",
        "?They told each other stories until the storm was over.",
        "But the {noun} was still outside. [When the sun came out, they found it {spot}.|After the rain, "
         "{f} found it {spot}.]",
        "\"[Thank you for your help|You are a good friend],\" said {h}."},
       {"a good friend opens the door", "every storm ends", "it is good to help others in bad weather"},
       {{"story_who", "Who called {h}?", "{f}"},
        {"story_what", "What was still outside?", "the {noun}|{a thing}|{thing}|the {thing}|{noun}|{a noun}"},
        {"story_where", "Where was {h} playing?", "{in}|the {place}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"new_friend", kToy, kOutdoor, false, true, "[shy|quiet|gentle]", "was too shy to say hello",
       {"{H} was new in town and had no friends. {H.he} [sat alone|stood alone] {in}.",
        "[{F} was playing there with {a thing}.|Not far away, {f} had {a thing}.] {H} wanted to say hello, "
         "but {h.he} was too shy.",
        "?{H} looked at {h.his} feet and said nothing.",
        "Then the {noun} [fell down|got away] and landed near {h}. {H} picked it up.",
        "[\"Here is your {noun},\"|\"Is this yours?\"] said {h} in a small voice. \"Thank you! [Do you want "
         "to play|Will you be my friend]?\" asked {f}.",
        "{H} [nodded and smiled|said yes]. [They played until dinner.|They {used} together.]",
        "[Now {h} was not alone any more.|After that day, they met every afternoon.]"},
       {"a small hello can start a friendship", "it is good to be brave and speak"},
       {{"story_who", "Who had {a thing}?", "{f}"},
        {"story_what", "What landed near {h}?", "the {noun}|{a thing}|{thing}|the {thing}|{noun}|{a noun}"},
        {"story_where", "Where was {h} alone?", "{in}|the {place}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"rescue", kWarm, kOutdoor, false, true, "[kind|gentle|careful]", "helped a small animal",
       {"{H} was walking {in}. {H.he} had {h.his} {thing} with {h.him}.",
        "[{H.he} heard a soft cry.|Something was making a sad sound.] {A pet} lay {spot}. It was hurt and "
         "[cold|hungry].",
        "\"[You poor thing|Do not be afraid],\" said {h}. {H.he} put the {noun} around the {pet} to keep it "
         "warm.",
        "[{H} ran to {f} for help.|{F} came to help.] {F} knew a lot about animals.",
        "{F} [cleaned the little leg|gave it water and food]. \"It needs rest,\" {f.he} said.",
        "?Every day, {h} brought it something to eat.",
        "[After a week|Soon], the {pet} was well again and [jumped for joy|could run].",
        "[It followed {h} everywhere.|It came back to visit {h} every spring.]"},
       {"even a small kindness is big", "we should take care of animals"},
       {{"story_what", "What did {h} find?", "{a pet}|{pet}|the {pet}"},
        {"story_who", "Who knew a lot about animals?", "{f}"},
        {"story_where", "Where did the {pet} lie?", "{spot}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"planting", 0, kOutdoor, false, false, "", "planted a seed",
       {"{H} found a small seed {in}. \"What will it be?\" {h.he} asked {h.his} {adult}.",
        "\"[Plant it and wait|You will see],\" said {h.his} {adult}. {H} put the seed in the ground {near}.",
        "The next day, {h.he} ran to look. [There was nothing.|The ground was still bare.] {H} was sad.",
        "{F} laughed. \"[Nothing will grow there|You are wasting your time],\" {f.he} said.",
        "?But {h} gave the seed water every morning. {H.he} sat beside it with {h.his} {thing} and waited.",
        "[Days went by.|A week passed, then another.] One morning, there was a tiny green leaf!",
        "[The plant grew and grew.|By summer, it was as tall as {h}.] It gave many {fruits}.",
        "{H} gave the first one to {f}. [\"I was wrong,\" said {f}.|{F} said it was the best {fruit} ever.]"},
       {"good things take time", "it pays to be patient"},
       {{"story_where", "Where did {h} plant the seed?", "{near}|in the ground {near}"},
        {"story_what", "What did the plant give?", "{fruits}|many {fruits}"},
        {"story_who", "Who laughed at {h}?", "{f}"}}},

      {"stuck", kFlies, kOutdoor, false, false, "", "had {a noun} stuck in a tree",
       {"{H} was {in} with {h.his} {thing}.",
        "[{H.he} {used} higher and higher.|The wind was strong that day.] Suddenly, the {noun} got stuck in "
         "a tall tree!",
        "{H} jumped, but {h.he} could not reach it. [\"Oh no!\" {h.he} cried.|{H.he} felt like crying.]",
        "{F} saw what had happened. \"[I can climb|I have a long stick|I know what to do],\" said {f}.",
        "?{H} held {h.his} breath and watched.",
        "{F} [went up slowly|reached up high] and got the {noun} down.",
        "[{H} jumped for joy.|\"You are the best!\" said {h}.] [To say thank you, {h.he} gave {f} {a "
         "food}.|Then they ate {a food} together under the tree.]"},
       {"a friend in need is a friend indeed", "it is good to ask for help"},
       {{"story_what", "What got stuck in the tree?",
         "the {noun}|{a thing}|the {thing}|{noun}|{thing}|{a noun}"},
        {"story_who", "Who got the {noun} down?", "{f}"},
        {"story_where", "Where was {h} with the {noun}?", "{in}|the {place}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"owner", kSmall, 0, false, true, "", "found {a thing}",
       {"{H} was on the way home {from}. {H.he} saw something on the ground.",
        "It was {a thing}! [It was very pretty.|{H} had always wanted one.|{H.he} put it in {h.his} pocket.]",
        "[At home, {h.his} {adult} saw the {noun}.|{H} showed it to {h.his} {adult}.] \"Somebody must miss "
         "it,\" said {h.his} {adult}.",
        "?{H} wanted to keep it. But {h.he} knew that it was not right.",
        "The next day, {h} asked everyone. [At last|Finally], {h.he} came to {f}.",
        "\"Is this your {noun}?\" asked {h}. [\"Yes! I looked for it all day,\" said {f}.|{F} jumped up. "
         "\"Yes! You found it!\"]",
        "[{F} gave {h.him} {a food} as a thank you.|{F} was so glad that {f.he} gave {h} a big hug.]"},
       {"it feels good to give things back", "what is lost should go home"},
       {{"story_what", "What did {h} find?", "{a thing}|{thing}|{a noun}|{noun}"},
        {"story_who", "Whose {noun} was it?", "{f}|{f}'s|{f}'s {noun}|it was {f}'s"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"swap", 0, kShop, false, true, "", "swapped {a thing} for {a food}",
       {"{H} was hungry. {H.he} had no money, only {a thing}.",
        "{H.he} went to the {place}. There {f} was selling {foods}.",
        "[\"I would like {a food}, please,\"|\"May I have {a food}?\"] said {h}. \"I can give you my {noun} "
         "for it.\"",
        "{F} looked at the {noun}. \"[That is too much for one {food}|Your {noun} is worth more],\" {f.he} "
         "said.",
        "?{F} was honest and did not want to cheat.",
        "\"[Keep it|It is yours]. Help me carry my bags, and the {food} is yours,\" said {f}.",
        "{H} [worked hard|carried everything] and got the {food}. [It was sweet and fresh.|It tasted "
         "wonderful.]"},
       {"honest people make good friends", "work can be as good as money"},
       {{"story_what", "What did {f} sell?", "{foods}"},
        {"story_who", "Who was selling {foods}?", "{f}"},
        {"story_where", "Where did {h} go?", "the {place}|to the {place}|{in}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"treasure", kSmall, kOutdoor, false, false, "[curious|clever|brave]", "found a treasure",
       {"One day, {h} found an old map. It showed a treasure {in}.",
        "{H} asked {f} to come along. [They packed {foods} and water.|They took a lamp and a rope.]",
        "[The way was long and steep.|They walked for hours.] [\"I am tired,\"|\"Are we there yet?\"] said "
         "{f}.",
        "?\"Just a little more,\" said {h}. {H.he} looked at the map again.",
        "[Then they saw a cross on the ground {near}.|The map led them to a place {near}.] They dug and dug.",
        "[At last|Finally], they found a small box. [Inside was {a thing}!|They opened it and saw {a "
         "thing}!]",
        "[It was not much, but they loved it.|They took turns to keep it.] \"[The best part was the "
         "trip|What a day],\" said {h}."},
       {"the best treasure is a good friend", "a trip is more fun with a friend"},
       {{"story_what", "What was in the box?", "{a thing}|{thing}|{a noun}|{noun}"},
        {"story_who", "Who went with {h}?", "{f}"},
        {"story_where", "Where did they dig?", "{near}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"cooking", kDish, 0, true, false, "", "cooked with a friend",
       {"{H} and {f} wanted to make {a fruit} pie for {h.his} {adult}.",
        "{H} [washed|cut] the {fruits}, and {f} mixed the [flour|dough] in {a thing}.",
        "[\"Now it needs salt,\" said {h}. But {h.he} took the sugar by mistake.|{F} put in too much pepper "
         "and had to sneeze.]",
        "?There was flour on the floor, on the table and on {h.his} nose.",
        "[They laughed and tried again.|\"It does not matter,\" said {f}. \"We can make another one.\"]",
        "[Soon|After an hour], the kitchen smelled wonderful. {H.his} {adult} [came in and smiled|took the "
         "first bite].",
        "\"[This is the best pie ever|You two are great cooks],\" said {h.his} {adult}."},
       {"mistakes can be fun", "cooking is more fun together"},
       {{"story_what", "What kind of pie did they make?", "{a fruit} pie|{fruit}|{fruit} pie"},
        {"story_who", "Who mixed in the {noun}?", "{f}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"building", 0, kOutdoor, false, false, "", "built a tower",
       {"{H} and {f} were {in}. \"Let us build a tower,\" said {h}.",
        "They used [sand and stones|sticks and mud]. The tower grew [taller and taller|higher and higher].",
        "[Then a big wind came, and the tower fell down.|Then {f} bumped into it, and it fell down.]",
        "[{F} was angry.|{F} kicked a stone.] \"It was all for nothing,\" {f.he} said.",
        "?{H} looked at the mess and thought.",
        "\"[We can make the bottom wider|Now we know how to do it better],\" said {h}.",
        "They built it again, and this time it stood. On the top, {h} put {h.his} {thing}.",
        "[Everyone came to look at it.|They were proud of their work.]"},
       {"you can always start again", "a fall can teach you how to build"},
       {{"story_what", "What did {h} put on the top?",
         "{h.his} {thing}|{a thing}|{thing}|the {thing}|the {noun}|{h.his} {noun}|{noun}|{a noun}"},
        {"story_who", "Who built the tower with {h}?", "{f}"},
        {"story_where", "Where did they build the tower?", "{in}|the {place}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"lost_way", kWear, kOutdoor, false, false, "", "lost the way home",
       {"{H} followed {a pet} {in}. {H.he} [walked farther and farther|did not look where {h.he} went].",
        "When {h.he} looked up, {h.he} did not know the way home. [It was getting dark.|Everything looked "
         "the same.]",
        "\"[Stay where you are|Keep calm],\" {h.his} {adult} had always said. So {h} sat down {spot} and "
         "waited.",
        "?{H.he} sang a song to feel better.",
        "At home, {f} saw that {h} was missing. {F} [took a lamp and went out|called all the others].",
        "[\"Where are you?\" called {f}.|{F} called and called.] Then {f.he} saw {h.his} {thing}. \"There "
         "you are!\"",
        "[{F} took {h} by the hand and led {h.him} home.|They walked home together under the stars.]"},
       {"it is wise to stay where you are when you are lost", "somebody always cares"},
       {{"story_what", "What did {h} follow?", "{a pet}|{pet}|the {pet}"},
        {"story_who", "Who found {h}?", "{f}"},
        {"story_where", "Where did {h} wait?", "{spot}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"quarrel", kToy, 0, false, false, "", "had a fight over {a thing}",
       {"{H} and {f} were good friends. One day, they found {a thing} {in}. Both wanted to {use} first.",
        "\"I had it first!\" said {h}. \"No, I did!\" said {f}.",
        "[They pulled and pulled until it broke.|They shouted until they were red in the face.]",
        "{H} went home. [{H.he} was angry at first, but then {h.he} missed {f}.|{H.he} could not eat or "
         "sleep.]",
        "?\"[A {noun} is only a thing|You can say sorry],\" said {h.his} {adult}. \"A friend is more.\"",
        "The next morning, {h} went to {f} and said, \"I am sorry.\" \"[Me too|I am sorry too],\" said {f}.",
        "[They shook hands and laughed.|They hugged and were friends again.] {H} gave {f} {a food}."},
       {"saying sorry can mend a friendship", "a friend is worth more than a toy"},
       {{"story_who", "Who did {h} fight with?", "{f}"},
        {"story_what", "What did they both want?",
         "{a thing}|the {noun}|{noun}|{thing}|the {thing}|to {use}|{a noun}"},
        {"story_where", "Where were the friends?", "{in}|the {place}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"hide_and_seek", kWear, kOutdoor, false, false, "", "played hide and seek",
       {"{H} and {f} played hide and seek {in}. {F} closed {f.his} eyes and counted to ten.",
        "{H} looked for a good place and hid {spot}.",
        "[\"Ready or not, here I come!\" called {f}.|\"Ten! I am coming!\" called {f}.]",
        "{F} looked [everywhere|in every corner], but {f.he} could not find {h}.",
        "?{H} had to laugh, but {h.he} put a hand over {h.his} mouth.",
        "Then {f} saw something {col}. It was the {thing} that {h} wore! \"I see you!\" said {f}.",
        "[They both laughed.|\"Now it is my turn to count,\" said {h}.] [They played until it got "
         "dark.|Next time, {h} left the {noun} at home.]"},
       {"what you wear can give you away", "games are best with a friend"},
       {{"story_where", "Where did {h} hide?", "{spot}"},
        {"story_who", "Who counted to ten?", "{f}"},
        {"story_what", "What did {h} wear?", "{a thing}|{thing}|the {thing}|the {noun}|{a noun}|{noun}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"greedy", 0, 0, false, false, "[hungry|greedy|silly]", "ate too many {foods}",
       {"{H.his} {adult} put a plate of {foods} on the table. \"They are for the party {in},\" said {h.his} "
        "{adult}.",
        "{H} took one. It was so good that {h.he} took another, and another.",
        "[Soon the plate was empty.|Before long, there was not one left.] {H.his} tummy hurt.",
        "{F} came in and [saw the empty plate|asked for {a food}]. \"[Where are they all|What happened]?\" "
         "asked {f}.",
        "?{H} hid the plate behind {h.his} {thing}, but it did not help.",
        "\"I ate them all,\" said {h}. \"I am sorry.\" [{F} was not angry.|{F} sighed.] \"Let us make some "
         "more,\" {f.he} said.",
        "[They worked all evening.|They baked and cooked together.] This time {h} did not eat a single one "
         "before the party."},
       {"too much of a good thing is bad", "it is good to leave some for others"},
       {{"story_what", "What did {h} eat?",
         "{foods}|the {foods}|a plate of {foods}|all the {foods}|too many {foods}"},
        {"story_who", "Who helped {h} to make more?", "{f}"},
        {"story_where", "Where was the party?", "{in}|the {place}|{place}"}}},

      {"saving", 0, kShop, true, true, "", "saved money for {a thing}",
       {"{H} saw {a thing} {in}. It cost ten coins, but {h.he} had only two.",
        "\"I will save my money,\" said {h}.",
        "[{H.he} fed the hens for {f}.|{H.he} washed the windows for {f}.] {F} gave {h.him} some coins.",
        "?Every evening, {h} counted the coins in {h.his} jar.",
        "[After a month|At last], {h} had ten coins. {H.he} ran back to the {place}.",
        "[The {noun} was still there!|There it was, the {thing}!] {H} paid and took it home.",
        "[{H.he} {used} every day.|{H.he} took very good care of it.|It felt better than any gift.]"},
       {"what you work for feels the best", "it is good to save"},
       {{"story_what", "What did {h} buy?", "{a thing}|{thing}|the {thing}|the {noun}|{a noun}|{noun}"},
        {"story_who", "Who gave {h} some coins?", "{f}"},
        {"story_where", "Where did {h} see the {noun}?", "{in}|the {place}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"late", 0, kOutdoor, true, false, "[sleepy|lazy|dreamy]", "was always late",
       {"{H} liked to sleep long. {H.he} was late for everything.",
        "One day, {f} said, \"Tomorrow we go to the {place}. The bus leaves at eight.\"",
        "But in the morning, {h} stayed in bed. \"[Just a little longer|Five more minutes],\" {h.he} said.",
        "[When {h} came, the bus was gone.|{H} ran to the bus, but it had left.] {H.he} [sat down and "
         "cried|felt very sorry].",
        "?In the evening, {f} told {h.him} about the trip. It had been great fun.",
        "{F} had brought {h.him} {a thing} {from}. \"[Next time you will be there too|So that you wake up "
         "early],\" said {f}.",
        "[From then on, {h} got up with the sun.|The next time, {h} was the first at the bus.]"},
       {"it is wise to be on time", "those who sleep too long miss the fun"},
       {{"story_what", "What did {f} bring?", "{a thing}|{thing}|{a noun}|{noun}"},
        {"story_who", "Who brought {a thing}?", "{f}"},
        {"story_where", "Where did the bus go?", "the {place}|to the {place}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},

      {"music", kToy, 0, false, true, "[shy|quiet|gentle]", "wanted to sing but was afraid",
       {"{H} loved to sing, but only when nobody could hear. {H.he} sang {in}, alone with {h.his} {thing}.",
        "One day, {f} heard {h.him}. \"[What a lovely voice|That was beautiful]!\" said {f}.",
        "[{H} turned red.|{H} wanted to run away.] \"Please do not tell anyone,\" {h.he} said.",
        "\"There is a show on [Sunday|Friday]. [You should sing there|Come and sing],\" said {f}.",
        "?{H} thought about it for three days.",
        "At the show, {h.his} knees shook. Then {h.he} saw {f} in the first row and began to sing.",
        "[When it was over, everyone clapped.|The room was very still, and then everyone cheered.] {F} gave "
         "{h.him} {a food}."},
       {"a friend can make you brave", "it is good to show what you can do"},
       {{"story_who", "Who heard {h} sing?", "{f}"},
        {"story_what", "What did {f} give to {h}?", "{a food}|{food}|the {food}"},
        {"story_where", "Where did {h} sing alone?", "{in}|the {place}|{place}"},
        {"story_colour", "What colour was the {noun}?", "{col}"}}},
  };
  // clang-format on
  return all;
}

}  // namespace qkv::tales
