"""Small tables of facts and words, written for tiny-chat. A table maps what is asked to what is answered."""

CAPITALS = {
    'France': 'Paris', 'Germany': 'Berlin', 'Italy': 'Rome', 'Spain': 'Madrid', 'Portugal': 'Lisbon', 'Greece': 'Athens',
    'Poland': 'Warsaw', 'Austria': 'Vienna', 'Hungary': 'Budapest', 'Norway': 'Oslo', 'Sweden': 'Stockholm',
    'Finland': 'Helsinki', 'Denmark': 'Copenhagen', 'Ireland': 'Dublin', 'England': 'London', 'Russia': 'Moscow',
    'China': 'Beijing', 'Japan': 'Tokyo', 'Korea': 'Seoul', 'India': 'Delhi', 'Thailand': 'Bangkok', 'Vietnam': 'Hanoi',
    'Egypt': 'Cairo', 'Kenya': 'Nairobi', 'Cuba': 'Havana', 'Peru': 'Lima', 'Chile': 'Santiago', 'Canada': 'Ottawa',
    'Turkey': 'Ankara', 'Iran': 'Tehran',
}
CAPITALS_ZH = {
    '中国': '北京', '法国': '巴黎', '日本': '东京', '英国': '伦敦', '德国': '柏林', '俄罗斯': '莫斯科', '韩国': '首尔',
    '意大利': '罗马', '西班牙': '马德里', '埃及': '开罗',
}
OPPOSITES = {
    'hot': 'cold', 'big': 'small', 'fast': 'slow', 'up': 'down', 'left': 'right', 'day': 'night', 'old': 'young',
    'open': 'closed', 'full': 'empty', 'good': 'bad', 'happy': 'sad', 'hard': 'soft', 'high': 'low', 'long': 'short',
    'light': 'dark', 'wet': 'dry', 'rich': 'poor', 'first': 'last', 'yes': 'no', 'in': 'out', 'early': 'late',
    'near': 'far', 'clean': 'dirty', 'strong': 'weak',
}
COLOURS = {
    'grass': 'green', 'snow': 'white', 'the sky': 'blue', 'coal': 'black', 'a banana': 'yellow', 'blood': 'red',
    'an orange': 'orange', 'milk': 'white', 'a lemon': 'yellow', 'a tomato': 'red', 'a leaf': 'green', 'the sea': 'blue',
    'chocolate': 'brown', 'a flamingo': 'pink', 'a plum': 'purple', 'an elephant': 'gray',
}
SOUNDS = {
    'dog': 'woof', 'cat': 'meow', 'cow': 'moo', 'duck': 'quack', 'sheep': 'baa', 'pig': 'oink', 'lion': 'roar',
    'frog': 'croak', 'bee': 'buzz', 'owl': 'hoot', 'snake': 'hiss', 'horse': 'neigh',
}
PLURALS = {
    'cat': 'cats', 'dog': 'dogs', 'box': 'boxes', 'child': 'children', 'man': 'men', 'foot': 'feet', 'mouse': 'mice',
    'city': 'cities', 'leaf': 'leaves', 'fish': 'fish', 'tooth': 'teeth', 'bus': 'buses', 'baby': 'babies', 'knife': 'knives',
}
PAST = {
    'go': 'went', 'see': 'saw', 'eat': 'ate', 'run': 'ran', 'sing': 'sang', 'write': 'wrote', 'take': 'took', 'buy': 'bought',
    'walk': 'walked', 'play': 'played', 'come': 'came', 'give': 'gave', 'make': 'made', 'swim': 'swam',
}
CHINESE = {
    'water': '水', 'fire': '火', 'mountain': '山', 'sun': '太阳', 'moon': '月亮', 'dog': '狗', 'cat': '猫', 'book': '书',
    'tree': '树', 'red': '红', 'blue': '蓝', 'green': '绿', 'big': '大', 'small': '小', 'one': '一', 'two': '二', 'three': '三',
    'hello': '你好', 'thanks': '谢谢', 'friend': '朋友', 'school': '学校', 'tea': '茶', 'rice': '米饭', 'house': '房子',
}
NUMBERS = {
    '0': 'zero', '1': 'one', '2': 'two', '3': 'three', '4': 'four', '5': 'five', '6': 'six', '7': 'seven', '8': 'eight',
    '9': 'nine', '10': 'ten', '11': 'eleven', '12': 'twelve', '20': 'twenty', '30': 'thirty', '100': 'one hundred',
}
LEGS = {'spider': '8', 'cat': '4', 'dog': '4', 'bird': '2', 'ant': '6', 'fish': '0', 'horse': '4', 'snake': '0', 'bee': '6', 'man': '2'}
DAYS = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday']
MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December']
DAYS_ZH = ['星期一', '星期二', '星期三', '星期四', '星期五', '星期六', '星期日']


def _next(cycle: list[str]) -> dict[str, str]:
    return {day: cycle[(i + 1) % len(cycle)] for i, day in enumerate(cycle)}


# table → (what is asked → answered, ways to ask, plain sentence)
TABLES: dict[str, tuple[dict[str, str], list[str], str]] = {
    'capital': (
        CAPITALS,
        ['What is the capital of {q}?', 'Capital of {q}?', 'Name the capital of {q}.', 'Which city is the capital of {q}?',
         'Tell me the capital of {q}.'],
        'The capital of {q} is {a}.',
    ),
    'capital_zh': (
        CAPITALS_ZH,
        ['{q}的首都是哪里?', '{q}的首都是哪座城市?', '请说出{q}的首都。', '{q}的首都叫什么?'],
        '{q}的首都是{a}。',
    ),
    'opposite': (
        OPPOSITES | {v: k for k, v in OPPOSITES.items()},
        ['What is the opposite of {q}?', 'Opposite of {q}?', 'Give the opposite of the word {q}.', 'Which word is the opposite of {q}?'],
        'The opposite of {q} is {a}.',
    ),
    'colour': (
        COLOURS,
        ['What color is {q}?', 'Which color does {q} have?', 'Tell me the color of {q}.', 'Color of {q}?'],
        'The color of {q} is {a}.',
    ),
    'sound': (
        SOUNDS,
        ['What sound does a {q} make?', 'What does the {q} say?', 'Which sound comes from a {q}?', 'Sound of a {q}?'],
        'The {q} says {a}.',
    ),
    'plural': (
        PLURALS,
        ['What is the plural of {q}?', 'Plural of {q}?', 'Give the plural of the word {q}.', 'One {q}, two what?'],
        'One {q}, two {a}.',
    ),
    'past': (
        PAST,
        ['What is the past tense of {q}?', 'Past tense of {q}?', 'Give the past form of {q}.', 'Today I {q}, yesterday I what?'],
        'Today I {q}, yesterday I {a}.',
    ),
    'to_chinese': (
        CHINESE,
        ['Translate to Chinese: {q}', 'How do you say {q} in Chinese?', 'What is {q} in Chinese?', '{q} 用中文怎么说?'],
        '{q} in Chinese is {a}.',
    ),
    'to_english': (
        {v: k for k, v in CHINESE.items()},
        ['Translate to English: {q}', '{q}用英语怎么说?', 'What does {q} mean in English?', '把{q}翻译成英语。'],
        '{q} in English is {a}.',
    ),
    'number_word': (
        NUMBERS,
        ['Write {q} as a word.', 'How do you write {q} in words?', 'Spell the number {q}.', '{q} in words?'],
        '{q} is written {a}.',
    ),
    'word_number': (
        {v: k for k, v in NUMBERS.items()},
        ['Write {q} as a number.', 'Which number is {q}?', 'Write {q} in digits.', '{q} in digits?'],
        '{q} is {a}.',
    ),
    'legs': (
        LEGS,
        ['How many legs does a {q} have?', 'Number of legs of a {q}?', 'Count the legs of a {q}.', 'A {q} has how many legs?'],
        'A {q} has {a} legs.',
    ),
    'next_day': (
        _next(DAYS) | _next(MONTHS),
        ['What comes after {q}?', 'Which one follows {q}?', 'Name the one after {q}.', 'After {q} comes what?'],
        'After {q} comes {a}.',
    ),
    'next_day_zh': (
        _next(DAYS_ZH),
        ['{q}的后一天是星期几?', '{q}之后是星期几?', '今天是{q},明天是星期几?', '{q}的第二天是星期几?'],
        '{q}之后是{a}。',
    ),
}

WORDS = (
    'red cat sun dog blue tree book fish moon cup hat pen box car bus key map ant bee owl pig cow hen fox rain snow wind star '
    'lake hill road door bread milk salt egg apple lemon river house green black white gold ship boat king hand foot rock'
).split()
NAMES = (
    'Ann Bob Tom Eva Max Lily Jack Rose Sam Mia Leo Zoe Ben Ivy Kim Dan Amy Ron Sue Ted Lin Wei Mei Jun Li Hua Ming Fang'
).split()
CITIES = list(CAPITALS.values())

# Conversation that has one right answer. (question spellings, answer)
SMALL_TALK: list[tuple[list[str], str]] = [
    (['Hello!', 'Hello', 'Hi', 'Hi!', 'Hi there!', 'Hey!', 'Good day!', 'Hello there!'], 'Hello! How can I help you?'),
    (['Good morning!', 'Good morning', 'Morning!'], 'Good morning! How can I help you?'),
    (['Good evening!', 'Good evening', 'Evening!'], 'Good evening! How can I help you?'),
    (['How are you?', 'How are you today?', 'How do you do?', 'How is it going?'], 'I am fine, thank you. And you?'),
    (['Thank you!', 'Thanks!', 'Thanks a lot!', 'Thank you very much!'], 'You are welcome!'),
    (['Goodbye!', 'Bye!', 'See you!', 'Bye bye!', 'See you later!'], 'Goodbye! See you soon.'),
    (['Good night!', 'Good night'], 'Good night! Sleep well.'),
    (['你好', '你好!', '您好!', '嗨!', '您好', '大家好!'], '你好!有什么可以帮你的吗?'),
    (['早上好!', '早上好', '早!'], '早上好!有什么可以帮你的吗?'),
    (['晚上好!', '晚上好'], '晚上好!有什么可以帮你的吗?'),
    (['你好吗?', '你今天好吗?', '最近怎么样?'], '我很好,谢谢。你呢?'),
    (['谢谢!', '谢谢你!', '多谢!', '非常感谢!'], '不客气!'),
    (['再见!', '拜拜!', '回头见!'], '再见!'),
    (['晚安!', '晚安'], '晚安!做个好梦。'),
    (['Who are you?', 'What is your name?', 'What are you called?', 'Tell me who you are.', 'Your name?', 'What should I call you?'],
     'I am tiny-chat, a small language model.'),
    (['What are you?', 'Are you a human?', 'Are you a robot?', 'Are you a person?'], 'I am a small language model.'),
    (['Who made you?', 'Who trained you?', 'Who is your maker?', 'Who built you?'], 'I was trained with swift.'),
    (['What can you do?', 'How can you help me?', 'What do you know?', 'What are you good at?'],
     'I can add, subtract, sort, count and answer simple questions.'),
    (['你是谁?', '你叫什么名字?', '你叫什么?', '请介绍一下你自己。', '怎么称呼你?'], '我是 tiny-chat,一个小语言模型。'),
    (['你是人吗?', '你是机器人吗?', '你是什么?'], '我是一个小语言模型。'),
    (['谁训练了你?', '谁创造了你?', '你是谁做的?'], '我是用 swift 训练的。'),
    (['你会做什么?', '你能帮我什么?', '你擅长什么?'], '我会加法、减法、排序、数数,也能回答简单的问题。'),
]
